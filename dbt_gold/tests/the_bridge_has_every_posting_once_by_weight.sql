-- Postings whose weights do not add up to 1, and postings that the bridge lacks.
select
    fact.job_posting_id,
    sum(bridge.weight) as weight
from {{ ref('fact_job_posting') }} as fact
left join {{ ref('bridge_job_skill') }} as bridge on bridge.job_posting_id = fact.job_posting_id
group by fact.job_posting_id
having coalesce(abs(sum(bridge.weight) - 1), 1) > 0.000001
