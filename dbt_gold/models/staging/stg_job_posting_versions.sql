-- Every version of every posting, blanks trimmed. Its place of work is as given: stg_locations takes it apart.
with cleaned as (

    select
        {{ text_or_null('job_posting_id', 128) }} as job_posting_id,
        {{ text_or_null('company_id', 128) }} as company_id,
        {{ text_or_null('title', 512) }} as title,
        coalesce(location, '') as given_location,
        coalesce(country, '') as given_country,
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

)

select
    job_posting_id,
    company_id,
    title,
    given_location,
    given_country,
    workplace_type,
    employment_type,
    seniority,
    salary_min,
    salary_max,
    cast(case when given_currency ~ '^[A-Z]{3}$' then given_currency end as varchar(8)) as currency,
    posted_at,
    scraped_at,
    url
from cleaned
where job_posting_id is not null
