-- Every skill that an enrichment names, and one member for postings without a skill. Spellings that differ in case or
-- blanks are one skill; of spellings and of categories the one that most mentions have stands.
with mentions as (

    select
        skill_key,
        skill_name,
        category
    from {{ ref('stg_job_skills') }}

),

names as (

    select
        skill_key,
        skill_name,
        row_number() over (partition by skill_key order by count(*) desc, skill_name) as name_rank
    from mentions
    group by skill_key, skill_name

),

categories as (

    select
        skill_key,
        category,
        row_number() over (partition by skill_key order by count(*) desc, category) as category_rank
    from mentions
    where category is not null
    group by skill_key, category

)

select
    names.skill_key,
    cast(names.skill_name as varchar(512)) as skill_name,
    cast(categories.category as varchar(256)) as category,
    false as is_unknown
from names
left join categories on categories.skill_key = names.skill_key and categories.category_rank = 1
where names.name_rank = 1

union all

select
    {{ surrogate_key(['cast(null as varchar(8))']) }} as skill_key,
    cast('Unknown' as varchar(512)) as skill_name,
    cast(null as varchar(256)) as category,
    true as is_unknown
