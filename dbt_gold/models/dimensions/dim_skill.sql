-- Every skill that a posting's newest enrichment names, and one member for postings without a skill. Spellings that
-- differ in case or blanks are one skill; of spellings and of categories the one that most postings have stands.
-- From the bridge, which has read the arrays already: its rows are counted instead of all arrays read in each run, and
-- the two cannot disagree about which skills there are, whatever is frozen.
with spellings as (

    select
        skill_key,
        skill_name,
        category,
        count(*) as postings
    from {{ ref('bridge_job_skill') }}
    where mentions > 0
    group by skill_key, skill_name, category

),

names as (

    select
        skill_key,
        skill_name,
        row_number() over (partition by skill_key order by sum(postings) desc, skill_name) as name_rank
    from spellings
    group by skill_key, skill_name

),

categories as (

    select
        skill_key,
        category,
        row_number() over (partition by skill_key order by sum(postings) desc, category) as category_rank
    from spellings
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
