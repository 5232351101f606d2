-- The newest version of each company.
with versions as (

    select
        {{ text_or_null('company_id', 256) }} as company_id,
        {{ text_or_null('name', 512) }} as company_name,
        {{ text_or_null('industry', 256) }} as industry,
        {{ text_or_null('size_band', 64) }} as size_band,
        {{ text_or_null('headquarters', 512) }} as headquarters,
        {{ text_or_null('website', 2048) }} as website,
        cast(updated_at as timestamp) as updated_at,
        row_number() over (
            partition by trim(company_id)
            order by updated_at desc nulls last, name nulls last, website nulls last
        ) as version_rank
    from {{ source('silver_companies', 'companies') }}

)

select
    company_id,
    company_name,
    industry,
    size_band,
    headquarters,
    website,
    updated_at
from versions
where version_rank = 1
    and company_id is not null
