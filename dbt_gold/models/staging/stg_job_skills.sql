-- The skills that the enrichments name, one row for each element of their arrays. What is no array of objects with a
-- name gives no row.
with measured as (

    select
        job_posting_id,
        skills,
        version_rank,
        {{ json_array_size('skills') }} as skill_count
    from {{ ref('stg_job_enrichment_versions') }}

),

-- By way of the few lengths that occur, so that the warehouse joins on equality. 65,535 bytes hold no 10,000 objects.
positions as (

    select
        lengths.skill_count,
        numbers.n as position
    from (
        select distinct skill_count
        from measured
        where skill_count > 0
    ) as lengths
    inner join ({{ numbers(4) }}) as numbers on numbers.n < lengths.skill_count

),

elements as (

    select
        measured.job_posting_id,
        measured.version_rank,
        {{ json_array_item('measured.skills', 'positions.position') }} as element
    from measured
    inner join positions on positions.skill_count = measured.skill_count

),

fields as (

    select
        job_posting_id,
        version_rank,
        {{ json_field('element', 'name') }} as name,
        {{ json_field('element', 'category') }} as category,
        {{ json_field('element', 'confidence') }} as confidence
    from elements

),

cleaned as (

    select
        job_posting_id,
        version_rank,
        {{ text_or_null(squeezed('name'), 128) }} as skill_name,
        {{ text_or_null(squeezed('lower(category)'), 64) }} as category,
        case
            when length(confidence) <= 60 and confidence ~ '^[0-9]{1,20}([.][0-9]+)?([eE][-+]?[0-9]{1,2})?$'
                then cast(confidence as double precision)
        end as confidence
    from fields
    -- A name that is an object or an array itself is none.
    where left(name, 1) not in ('{', '[')

)

select
    job_posting_id,
    {{ surrogate_key(['lower(skill_name)']) }} as skill_key,
    skill_name,
    category,
    -- Thousandths, by the same steps of arithmetic on every engine: their roundings of halves differ.
    cast(
        case
            when confidence <= 1 then cast(floor(confidence * 1000 + 0.5) as integer) * cast(0.001 as numeric(4, 3))
        end as numeric(4, 3)
    ) as confidence,
    version_rank = 1 as is_newest
from cleaned
where skill_name is not null
