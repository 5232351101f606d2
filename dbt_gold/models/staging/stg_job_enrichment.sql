-- The newest enrichment of each posting.
with cleaned as (

    select
        {{ text_or_null('job_posting_id', 128) }} as job_posting_id,
        -- Not cut: half an array is no array. A column of Spectrum holds 65,535 bytes.
        cast(case when length(skills) <= 65535 then skills end as varchar(65535)) as skills,
        {{ text_or_null('seniority_normalised', 64) }} as seniority_normalised,
        {{ text_or_null('role_family', 128) }} as role_family,
        -- Zero has no sign: engines keep or drop it as they please.
        cast(case when remote_score = 0 then 0 else remote_score end as double precision) as remote_score,
        {{ text_or_null('model', 128) }} as model,
        cast(enriched_at as timestamp) as enriched_at
    from {{ source('silver_ai', 'job_enrichment') }}

),

versions as (

    -- A digest of the array breaks the last ties: who needs no skills sorts none.
    select
        *,
        row_number() over (
            partition by job_posting_id
            order by
                enriched_at desc nulls last,
                model asc nulls last,
                seniority_normalised asc nulls last,
                role_family asc nulls last,
                remote_score asc nulls last,
                md5(skills) asc nulls last
        ) as version_rank
    from cleaned
    where job_posting_id is not null

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
