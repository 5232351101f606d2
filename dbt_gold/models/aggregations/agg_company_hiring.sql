{{ config(sort=['posted_month', 'company_key']) }}

-- Postings by month and company; the unknown member stands for postings without a company.
with hiring as (

    select
        company_key,
        cast(date_trunc('month', posted_date) as date) as posted_month,
        count(*) as postings,
        count(distinct location_key) as locations,
        sum(case when workplace_type = 'remote' then 1 else 0 end) as remote_postings,
        sum(case when coalesce(salary_min, salary_max) is not null then 1 else 0 end) as postings_with_salary,
        min(posted_date) as first_posted_date,
        max(posted_date) as last_posted_date
    from {{ ref('fact_job_posting') }}
    group by company_key, cast(date_trunc('month', posted_date) as date)

)

select
    {{ surrogate_key(['hiring.posted_month', 'hiring.company_key']) }} as hiring_key,
    hiring.posted_month,
    hiring.company_key,
    companies.company_id,
    companies.company_name,
    companies.industry,
    cast(hiring.postings as bigint) as postings,
    cast(hiring.locations as bigint) as locations,
    cast(hiring.remote_postings as bigint) as remote_postings,
    cast(hiring.postings_with_salary as bigint) as postings_with_salary,
    hiring.first_posted_date,
    hiring.last_posted_date
from hiring
inner join {{ ref('dim_company') }} as companies on companies.company_key = hiring.company_key
