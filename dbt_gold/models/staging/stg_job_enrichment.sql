-- The newest enrichment of each posting.
select
    job_posting_id,
    skills,
    seniority_normalised,
    role_family,
    remote_score,
    model,
    enriched_at
from {{ ref('stg_job_enrichment_versions') }}
where version_rank = 1
