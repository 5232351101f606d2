{#- A country under the name that the project uses for it (var `country_aliases`). -#}
{% macro country_name(column) -%}
    case lower({{ column }})
    {%- for alias, name in var('country_aliases').items() %}
        when '{{ alias | replace("'", "''") }}' then '{{ name | replace("'", "''") }}'
    {%- endfor %}
        else {{ column }}
    end
{%- endmacro %}
