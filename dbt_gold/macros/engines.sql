{#- What Redshift and DuckDB write in different words. Everything else in the project is the same SQL on both. -#}

{#- A text without spaces, tabs and line ends around it: `trim` takes off spaces only. -#}
{% macro trimmed(column) -%}
    {{ adapter.dispatch('trimmed')(column) }}
{%- endmacro %}

{% macro default__trimmed(column) -%}
    btrim({{ column }}, ' ' || chr(9) || chr(10) || chr(13))
{%- endmacro %}

{% macro duckdb__trimmed(column) -%}
    trim({{ column }}, ' ' || chr(9) || chr(10) || chr(13))
{%- endmacro %}

{#- How many elements a JSON array in a text has; NULL or 0 when it is no JSON array. -#}
{% macro json_array_size(column) -%}
    {{ adapter.dispatch('json_array_size')(column) }}
{%- endmacro %}

{% macro default__json_array_size(column) -%}
    json_array_length({{ column }}, true)
{%- endmacro %}

{% macro duckdb__json_array_size(column) -%}
    case when {{ strictly_json(column) }} then cast(json_array_length({{ column }}) as integer) end
{%- endmacro %}

{#-
    Whether a text is JSON as the standard and Redshift have it, on DuckDB: its json_valid lets pass a comma before a
    closing bracket, NaN and Infinity, all of which are looked for outside of strings, and the escape of the character 0.
    Two backslashes are one, and begin no escape.
-#}
{% macro strictly_json(column) -%}
    (
        json_valid({{ column }})
        and position('\u0000' in replace({{ column }}, '\\', '')) = 0
        and not regexp_matches(
            regexp_replace({{ column }}, '"(\\.|[^"\\])*"', '""', 'g'), ',\s*[]}]|nan|inf', 'i'
        )
    )
{%- endmacro %}

{#- An element of a JSON array, counted from 0, as text; strings without their quotes. -#}
{% macro json_array_item(column, position) -%}
    {{ adapter.dispatch('json_array_item')(column, position) }}
{%- endmacro %}

{% macro default__json_array_item(column, position) -%}
    json_extract_array_element_text({{ column }}, {{ position }}, true)
{%- endmacro %}

{% macro duckdb__json_array_item(column, position) -%}
    json_extract_string({{ column }}, cast({{ position }} as bigint))
{%- endmacro %}

{#- A field of a JSON object as text; NULL when it is missing, null, empty, or the text is no JSON object. -#}
{% macro json_field(column, name) -%}
    {{ adapter.dispatch('json_field')(column, name) }}
{%- endmacro %}

{% macro default__json_field(column, name) -%}
    nullif(json_extract_path_text({{ column }}, '{{ name }}', true), '')
{%- endmacro %}

{% macro duckdb__json_field(column, name) -%}
    case when {{ strictly_json(column) }} then nullif(json_extract_string({{ column }}, '$.{{ name }}'), '') end
{%- endmacro %}
