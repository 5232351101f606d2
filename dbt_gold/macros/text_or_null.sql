{#- A text without blanks around it; NULL when nothing is left. -#}
{% macro text_or_null(column, length) -%}
    cast(nullif(trim({{ column }}), '') as varchar({{ length }}))
{%- endmacro %}
