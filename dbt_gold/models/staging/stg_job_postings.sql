-- The newest version of each posting. Ties are broken by all columns that reach gold, and NULLs placed in words since
-- engines differ there, so that the choice is the same each time and everywhere; a sort looks at them in ties only.
with versions as (

    select
        *,
        row_number() over (
            partition by job_posting_id
            order by
                scraped_at desc nulls last,
                posted_at desc nulls last,
                title asc nulls last,
                company_id asc nulls last,
                given_location asc nulls last,
                given_country asc nulls last,
                workplace_type asc nulls last,
                employment_type asc nulls last,
                seniority asc nulls last,
                salary_min asc nulls last,
                salary_max asc nulls last,
                currency asc nulls last,
                url asc nulls last
        ) as version_rank
    from {{ ref('stg_job_posting_versions') }}

)

select
    versions.job_posting_id,
    versions.company_id,
    versions.title,
    locations.location,
    locations.country,
    locations.location_key,
    versions.workplace_type,
    versions.employment_type,
    versions.seniority,
    versions.salary_min,
    versions.salary_max,
    versions.currency,
    versions.posted_at,
    versions.scraped_at,
    versions.url
from versions
inner join {{ ref('stg_locations') }} as locations
    on locations.given_location = versions.given_location and locations.given_country = versions.given_country
where versions.version_rank = 1
