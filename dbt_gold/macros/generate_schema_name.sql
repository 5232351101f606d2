{#- The schema as configured, never `<target schema>_<custom schema>`: the gold schema is called gold everywhere. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
