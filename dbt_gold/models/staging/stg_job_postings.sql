-- The newest version of each posting. Ties are broken in full, and NULLs placed in words since engines differ there,
-- so that the choice is the same each time and everywhere.
with versions as (

    select
        {{ text_or_null('job_posting_id', 256) }} as job_posting_id,
        {{ text_or_null('company_id', 256) }} as company_id,
        {{ text_or_null('title', 1024) }} as title,
        {{ text_or_null('location', 512) }} as location,
        {{ text_or_null('country', 128) }} as country,
        cast(lower(nullif(trim(workplace_type), '')) as varchar(64)) as workplace_type,
        cast(lower(nullif(trim(employment_type), '')) as varchar(64)) as employment_type,
        {{ text_or_null('seniority', 128) }} as seniority,
        cast(salary_min as numeric(12, 2)) as salary_min,
        cast(salary_max as numeric(12, 2)) as salary_max,
        cast(upper(nullif(trim(currency), '')) as varchar(8)) as currency,
        cast(posted_at as timestamp) as posted_at,
        cast(scraped_at as timestamp) as scraped_at,
        {{ text_or_null('url', 2048) }} as url,
        row_number() over (
            partition by trim(job_posting_id)
            order by scraped_at desc nulls last, posted_at desc nulls last, description nulls last, url nulls last
        ) as version_rank
    from {{ source('silver_linkedin', 'job_postings') }}

)

select
    job_posting_id,
    company_id,
    title,
    location,
    country,
    workplace_type,
    employment_type,
    seniority,
    salary_min,
    salary_max,
    currency,
    posted_at,
    scraped_at,
    url
from versions
where version_rank = 1
    and job_posting_id is not null
