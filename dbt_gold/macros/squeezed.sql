{#-
    A text with each run of blanks (space, tab, line end) as one space, and none around it.
    Without a regular expression: Redshift replaces every match, PostgreSQL and DuckDB the first unless told otherwise.
    The marks are control characters: of `12`, `21` goes wherever two spaces met, and `12` becomes a space again.
-#}
{% macro squeezed(column) -%}
    trim(replace(replace(replace(
        translate({{ column }}, chr(9) || chr(10) || chr(13), '   '),
        ' ', chr(1) || chr(2)), chr(2) || chr(1), ''), chr(1) || chr(2), ' '))
{%- endmacro %}
