{#-
    A text without blanks around it, cut at so many characters; NULL when nothing is left.
    Redshift counts bytes in varchar(n), up to four a character: with four times the room the cast cuts nothing off,
    and every engine has the same text.
-#}
{% macro text_or_null(column, characters) -%}
    cast(nullif(left({{ trimmed(column) }}, {{ characters }}), '') as varchar({{ characters * 4 }}))
{%- endmacro %}
