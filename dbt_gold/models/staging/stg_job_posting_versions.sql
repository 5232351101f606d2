-- Every version of every posting, with its place of work taken apart; version_rank 1 is the newest. Ties are broken by
-- all columns that reach gold, and NULLs placed in words since engines differ there, so that the choice is the same
-- each time and everywhere. One key sorts faster than eleven columns.
with cleaned as (

    select
        {{ text_or_null('job_posting_id', 128) }} as job_posting_id,
        {{ text_or_null('company_id', 128) }} as company_id,
        {{ text_or_null('title', 512) }} as title,
        {{ text_or_null(squeezed('location'), 256) }} as location,
        {{ text_or_null(squeezed('country'), 64) }} as given_country,
        {{ text_or_null('lower(workplace_type)', 32) }} as workplace_type,
        {{ text_or_null('lower(employment_type)', 32) }} as employment_type,
        {{ text_or_null('seniority', 64) }} as seniority,
        cast(salary_min as numeric(12, 2)) as salary_min,
        cast(salary_max as numeric(12, 2)) as salary_max,
        {{ text_or_null('upper(currency)', 8) }} as given_currency,
        cast(posted_at as timestamp) as posted_at,
        cast(scraped_at as timestamp) as scraped_at,
        {{ text_or_null('url', 2048) }} as url
    from {{ source('silver_linkedin', 'job_postings') }}

),

pieces as (

    select
        *,
        {{ country_name('given_country') }} as country_in_full,
        length(location) - length(replace(location, ',', '')) + 1 as piece_count,
        nullif(trim(split_part(location, ',', 1)), '') as first_piece,
        nullif(trim(split_part(location, ',', 2)), '') as second_piece,
        nullif(
            trim(split_part(location, ',', length(location) - length(replace(location, ',', '')) + 1)), ''
        ) as last_piece
    from cleaned
    where job_posting_id is not null

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
    job_posting_id,
    company_id,
    title,
    location,
    cast(city as varchar(1024)) as city,
    cast(region as varchar(1024)) as region,
    cast(country as varchar(1024)) as country,
    {{ surrogate_key(['lower(city)', 'lower(region)', 'lower(country)']) }} as location_key,
    workplace_type,
    employment_type,
    seniority,
    salary_min,
    salary_max,
    cast(case when given_currency ~ '^[A-Z]{3}$' then given_currency end as varchar(8)) as currency,
    posted_at,
    scraped_at,
    url,
    row_number() over (
        partition by job_posting_id
        order by
            scraped_at desc nulls last,
            posted_at desc nulls last,
            {{ surrogate_key([
                'title', 'company_id', 'location', 'given_country', 'workplace_type', 'employment_type',
                'seniority', 'salary_min', 'salary_max', 'given_currency', 'url'
            ]) }}
    ) as version_rank
from placed
