-- The newest enrichment of each posting.
with versions as (

    select
        {{ text_or_null('job_posting_id', 256) }} as job_posting_id,
        {{ text_or_null('skills', 65535) }} as skills,
        {{ text_or_null('seniority_normalised', 128) }} as seniority_normalised,
        {{ text_or_null('role_family', 256) }} as role_family,
        cast(remote_score as double precision) as remote_score,
        {{ text_or_null('model', 256) }} as model,
        cast(enriched_at as timestamp) as enriched_at,
        row_number() over (
            partition by trim(job_posting_id)
            order by enriched_at desc nulls last, model nulls last
        ) as version_rank
    from {{ source('silver_ai', 'job_enrichment') }}

)

select
    job_posting_id,
    skills,
    seniority_normalised,
    role_family,
    remote_score,
    model,
    enriched_at
from versions
where version_rank = 1
    and job_posting_id is not null
