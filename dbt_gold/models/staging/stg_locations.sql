-- Every place of work as silver spells it, taken apart, with the number of postings' versions that have it. There are
-- far fewer spellings than postings, and a dozen text functions take one apart: so silver is grouped first, and who
-- needs a posting's place joins it by `given_location` and `given_country`, which are never NULL.
with spellings as (

    select
        coalesce(location, '') as given_location,
        coalesce(country, '') as given_country,
        count(*) as postings
    from {{ source('silver_linkedin', 'job_postings') }}
    where {{ trimmed('job_posting_id') }} <> ''
    group by coalesce(location, ''), coalesce(country, '')

),

cleaned as (

    select
        given_location,
        given_country,
        postings,
        {{ text_or_null(squeezed('given_location'), 256) }} as location,
        {{ text_or_null(squeezed('given_country'), 64) }} as country_as_given
    from spellings

),

pieces as (

    select
        *,
        {{ country_name('country_as_given') }} as country_in_full,
        length(location) - length(replace(location, ',', '')) + 1 as piece_count,
        nullif(trim(split_part(location, ',', 1)), '') as first_piece,
        nullif(trim(split_part(location, ',', 2)), '') as second_piece,
        nullif(
            trim(split_part(location, ',', length(location) - length(replace(location, ',', '')) + 1)), ''
        ) as last_piece
    from cleaned

),

placed as (

    -- `City`, `City, Country` or `City, Region, Country`; the last piece is a region when the source names the
    -- country apart and it is another text. A place that is the country's name alone has no city, nor has `Remote`.
    select
        *,
        coalesce(
            country_in_full,
            case when piece_count > 1 then {{ country_name('last_piece') }} end
        ) as country,
        case
            when lower(first_piece) = 'remote' then null
            when piece_count = 1 and lower({{ country_name('first_piece') }}) = lower(country_in_full) then null
            else first_piece
        end as city,
        case
            when piece_count > 2 then second_piece
            when piece_count = 2 and lower({{ country_name('last_piece') }}) <> lower(country_in_full) then second_piece
        end as region
    from pieces

)

select
    given_location,
    given_country,
    location,
    cast(city as varchar(1024)) as city,
    cast(region as varchar(1024)) as region,
    cast(country as varchar(1024)) as country,
    {{ surrogate_key(['lower(city)', 'lower(region)', 'lower(country)']) }} as location_key,
    postings
from placed
