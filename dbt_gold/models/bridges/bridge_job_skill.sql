{{ config(
    unique_key='job_posting_id',
    sort=['posted_date', 'skill_key'],
    incremental_predicates=delete_predicates(this)
) }}

-- The skills of each posting. A posting without a skill has one row with the unknown member, so that a join loses no
-- posting, and an incremental run replaces the skills of a posting that no longer has any. All rows of a posting are
-- replaced together: the key of the delete is the posting.
-- This is the only place where arrays of skills are read, and only those of the postings chosen here.
with postings as (

    select
        fact.job_posting_id,
        fact.posted_date,
        fact.enriched_at
    from {{ ref('fact_job_posting') }} as fact
    {% if is_incremental() %}
    left join (
        select
            job_posting_id,
            max(posted_date) as posted_date,
            max(enriched_at) as enriched_at
        from {{ this }}
        group by job_posting_id
    ) as present on present.job_posting_id = fact.job_posting_id
    where present.job_posting_id is null
        or (
            {{ may_change('present.posted_date', this) }}
            and (
                present.posted_date <> fact.posted_date
                or coalesce(present.enriched_at, cast('1900-01-01' as timestamp))
                <> coalesce(fact.enriched_at, cast('1900-01-01' as timestamp))
            )
        )
    {% endif %}

),

enrichments as (

    select
        enrichment.job_posting_id,
        enrichment.skills
    from {{ ref('stg_job_enrichment') }} as enrichment
    inner join postings on postings.job_posting_id = enrichment.job_posting_id

),

skills as (

    {{ skills_of('enrichments') }}

),

pairs as (

    select
        postings.job_posting_id,
        coalesce(skills.skill_key, {{ surrogate_key(['cast(null as varchar(8))']) }}) as skill_key,
        coalesce(skills.skill_name, 'Unknown') as skill_name,
        skills.category,
        postings.posted_date,
        skills.confidence,
        coalesce(skills.mentions, 0) as mentions,
        coalesce(skills.skill_count, 1) as skill_count,
        postings.enriched_at
    from postings
    left join skills on skills.job_posting_id = postings.job_posting_id

)

select
    {{ surrogate_key(['job_posting_id', 'skill_key']) }} as bridge_key,
    job_posting_id,
    skill_key,
    cast(skill_name as varchar(512)) as skill_name,
    cast(category as varchar(256)) as category,
    posted_date,
    cast(confidence as numeric(4, 3)) as confidence,
    cast(mentions as integer) as mentions,
    cast(1 as double precision) / skill_count as weight,
    enriched_at
from pairs
