{#-
    md5 over columns, as varchar(32). Each value has its length in front, so no separator within a value makes two
    lists of values look alike, and a NULL is a dash, which no value can be: an empty text is `0:`.
    Redshift has no concat_ws, md5 of NULL is NULL, and a cast to varchar without a length cuts at 256.
-#}
{% macro surrogate_key(columns) -%}
    cast(md5(
    {%- for column in columns %}
        {%- set text = 'cast(' ~ column ~ ' as varchar(8192))' %}
        coalesce(cast(length({{ text }}) as varchar(8)) || ':' || {{ text }}, '-')
        {%- if not loop.last %} ||{% endif %}
    {%- endfor %}
    ) as varchar(32))
{%- endmacro %}
