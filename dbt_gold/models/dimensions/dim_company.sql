-- Every company that a fact can name: the known ones, those that postings name and silver does not have (not yet, or
-- deleted there: inferred, so that facts need not be rewritten), and one member for postings without a company.
with known as (

    select * from {{ ref('stg_companies') }}

),

inferred as (

    select named.company_id
    from (
        select distinct company_id
        from {{ ref('stg_job_posting_versions') }}
        where company_id is not null
    ) as named
    left join known on known.company_id = named.company_id
    where known.company_id is null

),

members as (

    select
        company_id,
        coalesce(company_name, 'Unknown') as company_name,
        industry,
        size_band,
        headquarters,
        website,
        updated_at,
        false as is_inferred
    from known

    union all

    select
        company_id,
        'Unknown' as company_name,
        cast(null as varchar(512)) as industry,
        cast(null as varchar(128)) as size_band,
        cast(null as varchar(1024)) as headquarters,
        cast(null as varchar(8192)) as website,
        cast(null as timestamp) as updated_at,
        true as is_inferred
    from inferred

    union all

    select
        cast(null as varchar(512)) as company_id,
        'Unknown' as company_name,
        cast(null as varchar(512)) as industry,
        cast(null as varchar(128)) as size_band,
        cast(null as varchar(1024)) as headquarters,
        cast(null as varchar(8192)) as website,
        cast(null as timestamp) as updated_at,
        true as is_inferred

)

select
    {{ surrogate_key(['company_id']) }} as company_key,
    cast(coalesce(company_id, 'unknown') as varchar(512)) as company_id,
    cast(company_name as varchar(1024)) as company_name,
    cast(industry as varchar(512)) as industry,
    cast(size_band as varchar(128)) as size_band,
    cast(headquarters as varchar(1024)) as headquarters,
    cast(website as varchar(8192)) as website,
    updated_at,
    is_inferred
from members
