{{ config(sort=['posted_date']) }}

-- Postings by day and country. Salaries are counted, not averaged: they come in several currencies.
with postings as (

    select
        posted_date,
        coalesce(country, 'Unknown') as country,
        company_key,
        workplace_type,
        salary_min,
        salary_max
    from {{ ref('fact_job_posting') }}

)

select
    {{ surrogate_key(['posted_date', 'country']) }} as daily_key,
    posted_date,
    cast(country as varchar(1024)) as country,
    cast(count(*) as bigint) as postings,
    cast(count(distinct company_key) as bigint) as companies,
    cast(sum(case when workplace_type = 'remote' then 1 else 0 end) as bigint) as remote_postings,
    cast(
        sum(case when coalesce(salary_min, salary_max) is not null then 1 else 0 end) as bigint
    ) as postings_with_salary
from postings
group by posted_date, country
