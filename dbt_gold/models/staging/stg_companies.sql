-- The newest version of each company.
with cleaned as (

    select
        {{ text_or_null('company_id', 128) }} as company_id,
        {{ text_or_null('name', 256) }} as company_name,
        {{ text_or_null('industry', 128) }} as industry,
        {{ text_or_null('size_band', 32) }} as size_band,
        {{ text_or_null('headquarters', 256) }} as headquarters,
        {{ text_or_null('website', 2048) }} as website,
        cast(updated_at as timestamp) as updated_at
    from {{ source('silver_companies', 'companies') }}

),

versions as (

    select
        *,
        row_number() over (
            partition by company_id
            order by
                updated_at desc nulls last,
                {{ surrogate_key(['company_name', 'industry', 'size_band', 'headquarters', 'website']) }}
        ) as version_rank
    from cleaned
    where company_id is not null

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
