{{ config(sort=['posted_month', 'skill_key']) }}

-- Postings by month and skill. Beside them all postings of the month, for a share that readers can add up over months.
with postings as (

    select
        job_posting_id,
        company_key,
        workplace_type,
        cast(date_trunc('month', posted_date) as date) as posted_month
    from {{ ref('fact_job_posting') }}

),

months as (

    select
        posted_month,
        count(*) as month_postings
    from postings
    group by posted_month

),

demand as (

    select
        postings.posted_month,
        bridge.skill_key,
        count(*) as postings,
        count(distinct postings.company_key) as companies,
        sum(case when postings.workplace_type = 'remote' then 1 else 0 end) as remote_postings
    from {{ ref('bridge_job_skill') }} as bridge
    inner join postings on postings.job_posting_id = bridge.job_posting_id
    group by postings.posted_month, bridge.skill_key

)

select
    {{ surrogate_key(['demand.posted_month', 'demand.skill_key']) }} as demand_key,
    demand.posted_month,
    demand.skill_key,
    skills.skill_name,
    skills.category,
    cast(demand.postings as bigint) as postings,
    cast(demand.companies as bigint) as companies,
    cast(demand.remote_postings as bigint) as remote_postings,
    cast(months.month_postings as bigint) as month_postings
from demand
inner join {{ ref('dim_skill') }} as skills on skills.skill_key = demand.skill_key
inner join months on months.posted_month = demand.posted_month
where not skills.is_unknown
