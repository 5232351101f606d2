{#-
    A select of the whole numbers from 0 to 10^digits - 1, as `n`.
    Redshift's generate_series runs on the leader node only, which cannot join its rows with a table's.
-#}
{% macro numbers(digits) -%}
    {%- set digit -%}
        (select 0 as d union all select 1 union all select 2 union all select 3 union all select 4
        union all select 5 union all select 6 union all select 7 union all select 8 union all select 9)
    {%- endset -%}
    select
        {% for power in range(digits) -%}
            {{ 'd' ~ power }}.d * {{ 10 ** power }}{{ ' + ' if not loop.last else ' as n' }}
        {%- endfor %}
    from {{ digit }} as d0
    {%- for power in range(1, digits) %}
    cross join {{ digit }} as d{{ power }}
    {%- endfor %}
{%- endmacro %}
