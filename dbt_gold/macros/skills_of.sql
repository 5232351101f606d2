{#-
    A select of the skills that enrichments name, one row for each posting and skill: job_posting_id, skill_key,
    skill_name, category, confidence (the highest), mentions (an array may name a skill twice) and skill_count, the
    number of the posting's skills. What is no array of objects with a name gives no row.
    `enrichments` is a relation with job_posting_id and skills, one row a posting. A macro and no model, so that a caller
    picks its enrichments first: reading JSON is what costs, and no engine pushes a condition down through it. Postings
    that come again bring their array with them, and thousands name a skill in the same words: each array is taken
    apart once, and each element read once.
-#}
{% macro skills_of(enrichments) -%}
    with arrays as (

        select
            md5(skills) as array_key,
            min(skills) as skills
        from {{ enrichments }}
        where skills is not null
        group by md5(skills)

    ),

    measured as (

        select
            array_key,
            skills,
            {{ json_array_size('skills') }} as element_count
        from arrays

    ),

    -- By way of the few lengths that occur, so that the warehouse joins on equality; grouped, so that it does this first
    -- and does not try every number with every array. 65,535 bytes hold no 10,000 objects.
    positions as (

        select
            lengths.element_count,
            numbers.n as position
        from (
            select distinct element_count
            from measured
            where element_count > 0
        ) as lengths
        inner join ({{ numbers(4) }}) as numbers on numbers.n < lengths.element_count
        group by lengths.element_count, numbers.n

    ),

    elements as (

        select
            measured.array_key,
            {{ json_array_item('measured.skills', 'positions.position') }} as element
        from measured
        inner join positions on positions.element_count = measured.element_count

    ),

    fields as (

        select
            element,
            {{ json_field('element', 'name') }} as name,
            {{ json_field('element', 'category') }} as category,
            {{ json_field('element', 'confidence') }} as confidence
        from (select distinct element from elements) as different

    ),

    cleaned as (

        select
            element,
            {{ text_or_null(squeezed('name'), 128) }} as skill_name,
            {{ text_or_null(squeezed('lower(category)'), 64) }} as category,
            case
                when length(confidence) <= 60 and confidence ~ '^[0-9]{1,20}([.][0-9]+)?([eE][-+]?[0-9]{1,2})?$'
                    then cast(confidence as double precision)
            end as confidence
        from fields
        -- A name that is an object or an array itself is none.
        where left(name, 1) not in ('{', '[')

    ),

    -- Distinct already: said again so that no planner computes these columns for each row of the join below.
    skills as (

        select distinct
            element,
            {{ surrogate_key(['lower(skill_name)']) }} as skill_key,
            skill_name,
            category,
            -- Thousandths, by the same steps of arithmetic on every engine: their roundings of halves differ.
            cast(
                case
                    when confidence <= 1
                        then cast(floor(confidence * 1000 + 0.5) as integer) * cast(0.001 as numeric(4, 3))
                end as numeric(4, 3)
            ) as confidence
        from cleaned
        where skill_name is not null

    ),

    named as (

        select
            elements.array_key,
            skills.skill_key,
            min(skills.skill_name) as skill_name,
            min(skills.category) as category,
            max(skills.confidence) as confidence,
            count(*) as mentions,
            count(*) over (partition by elements.array_key) as skill_count
        from elements
        inner join skills on skills.element = elements.element
        group by elements.array_key, skills.skill_key

    )

    select
        enrichments.job_posting_id,
        named.skill_key,
        named.skill_name,
        named.category,
        named.confidence,
        named.mentions,
        named.skill_count
    from {{ enrichments }} as enrichments
    inner join named on named.array_key = md5(enrichments.skills)
{%- endmacro %}
