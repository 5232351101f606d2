{{ config(
    unique_key='job_posting_id',
    sort=['posted_date', 'country'],
    incremental_predicates=delete_predicates(this)
) }}

-- Late arrivals: staging keeps the newest version of a posting over the whole of silver, and an incremental run takes
-- what is new or newer than its row here. So a file that arrives late counts however old it is, and an old version
-- never replaces a newer one.
with postings as (

    select * from {{ ref('stg_job_postings') }}

),

enrichment as (

    select * from {{ ref('stg_job_enrichment') }}

)

select
    postings.job_posting_id,
    {{ surrogate_key(['postings.company_id']) }} as company_key,
    postings.location_key,
    -- Sources give impossible days, too: before the calendar, or after the posting was seen.
    cast(
        case
            when postings.posted_at >= cast('{{ var("calendar_first") }}' as timestamp)
                and postings.posted_at < postings.scraped_at + interval '1 day'
                then postings.posted_at
            else postings.scraped_at
        end as date
    ) as posted_date,
    postings.title,
    postings.location,
    cast(postings.country as varchar(1024)) as country,
    postings.workplace_type,
    postings.employment_type,
    cast(coalesce(enrichment.seniority_normalised, postings.seniority) as varchar(256)) as seniority,
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
left join {{ this }} as present on present.job_posting_id = postings.job_posting_id
where present.job_posting_id is null
    or (
        {{ may_change('present.posted_date', this) }}
        and (
            present.scraped_at < postings.scraped_at
            or coalesce(present.enriched_at, cast('1900-01-01' as timestamp))
            <> coalesce(enrichment.enriched_at, cast('1900-01-01' as timestamp))
        )
    )
{% endif %}
