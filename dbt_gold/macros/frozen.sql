{#-
    The condition under which a row that is there may change: its day of posting is at most `frozen_after_days` behind
    the newest one. The model's choice of rows and the delete of dbt use this same condition: if the model chose a row
    that the delete passed over, it would be there twice.
-#}
{% macro may_change(column, relation) -%}
    {%- if var('frozen_after_days') | int > 0 -%}
        {{ column }} >= (select max(posted_date) - {{ var('frozen_after_days') | int }} from {{ relation }})
    {%- else -%}
        1 = 1
    {%- endif -%}
{%- endmacro %}

{#- The same as dbt's incremental_predicates: none while nothing is frozen. -#}
{% macro delete_predicates(relation) -%}
    {{ return([may_change('posted_date', relation)] if var('frozen_after_days') | int > 0 else []) }}
{%- endmacro %}
