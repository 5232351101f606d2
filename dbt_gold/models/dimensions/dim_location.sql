-- Every place of work that a version of a posting names, and one member for postings without a place. Spellings that
-- differ in case or blanks are one place, named as most postings have it.
with spellings as (

    select
        location_key,
        city,
        region,
        country,
        sum(postings) as postings
    from {{ ref('stg_locations') }}
    group by location_key, city, region, country

    union all

    select
        {{ surrogate_key(['cast(null as varchar(8))'] * 3) }} as location_key,
        cast(null as varchar(1024)) as city,
        cast(null as varchar(1024)) as region,
        cast(null as varchar(1024)) as country,
        0 as postings

),

ranked as (

    select
        *,
        row_number() over (
            partition by location_key
            order by postings desc, city asc nulls last, region asc nulls last, country asc nulls last
        ) as spelling_rank
    from spellings

)

select
    location_key,
    cast(
        coalesce(
            nullif(
                coalesce(city, '')
                || case when city is not null and coalesce(region, country) is not null then ', ' else '' end
                || coalesce(region, '')
                || case when region is not null and country is not null then ', ' else '' end
                || coalesce(country, ''),
                ''
            ),
            'Unknown'
        ) as varchar(4096)
    ) as location_name,
    city,
    region,
    country
from ranked
where spelling_rank = 1
