-- The newest version of each posting.
select
    job_posting_id,
    company_id,
    title,
    location,
    city,
    region,
    country,
    location_key,
    workplace_type,
    employment_type,
    seniority,
    salary_min,
    salary_max,
    currency,
    posted_at,
    scraped_at,
    url
from {{ ref('stg_job_posting_versions') }}
where version_rank = 1
