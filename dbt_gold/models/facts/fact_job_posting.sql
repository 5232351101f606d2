{{ config(unique_key='job_posting_id') }}

-- Late updates: staging keeps the newest version of a posting over the whole of silver, and only then rows are
-- chosen by age, so an old version that arrives late never replaces a newer one.
with postings as (

    select * from {{ ref('stg_job_postings') }}

),

enrichment as (

    select * from {{ ref('stg_job_enrichment') }}

)

select
    postings.job_posting_id,
    {{ surrogate_key(['postings.company_id']) }} as company_key,
    cast(coalesce(postings.posted_at, postings.scraped_at) as date) as posted_date,
    postings.title,
    postings.location,
    postings.country,
    postings.workplace_type,
    postings.employment_type,
    cast(coalesce(enrichment.seniority_normalised, postings.seniority) as varchar(128)) as seniority,
    enrichment.role_family,
    enrichment.remote_score,
    postings.salary_min,
    postings.salary_max,
    postings.currency,
    postings.url,
    postings.posted_at,
    postings.scraped_at,
    enrichment.enriched_at
from postings
left join enrichment on enrichment.job_posting_id = postings.job_posting_id
{% if is_incremental() %}
-- An enrichment may come after its posting, so either time brings a row in again. `>=` takes ties in.
where postings.scraped_at >= (
        select coalesce(max(scraped_at), cast('1900-01-01' as timestamp)) - interval '{{ var("lookback_days") }} days'
        from {{ this }}
    )
    or enrichment.enriched_at >= (
        select coalesce(max(enriched_at), cast('1900-01-01' as timestamp)) - interval '{{ var("lookback_days") }} days'
        from {{ this }}
    )
{% endif %}
