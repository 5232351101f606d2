{#-
    A select of every day from `first` to `last`, both included, as `date_day`; at most 27 years (10,000 days).
    `first` and `last` are texts, 2020-01-31.
-#}
{% macro generate_date_spine(first, last) -%}
    select cast('{{ first }}' as date) + n as date_day
    from ({{ numbers(4) }}) as numbers
    where n <= cast('{{ last }}' as date) - cast('{{ first }}' as date)
{%- endmacro %}
