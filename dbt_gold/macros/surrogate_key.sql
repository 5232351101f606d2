{#-
    md5 over columns, as varchar(32). A NULL has a mark of its own, so that it differs from an empty text.
    Redshift has no concat_ws, md5 of NULL is NULL, and a cast to varchar without a length cuts at 256.
-#}
{% macro surrogate_key(columns) -%}
    cast(md5(
    {%- for column in columns %}
        coalesce(cast({{ column }} as varchar(4096)), '_null_')
        {%- if not loop.last %} || '|' ||{% endif %}
    {%- endfor %}
    ) as varchar(32))
{%- endmacro %}
