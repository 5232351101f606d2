{#-
    Loads a seed, 1,000 rows a statement, with the values written as literals. dbt's own macro sends them as parameters,
    each by a look-up of its placeholder, and the driver then describes and encodes every one: dim_date has 40,000.
    Redshift turns a literal into its column's type, and reads a backslash in one as an escape while PostgreSQL does
    not: `chr` says it on both.
-#}
{% macro redshift__load_csv_rows(model, agate_table) %}
    {%- set names = get_seed_column_quoted_csv(model, agate_table.column_names) -%}
    {%- set loaded = [] -%}
    {%- for rows in agate_table.rows | batch(1000) -%}
        {%- set values = [] -%}
        {%- for row in rows -%}
            {%- set cells = [] -%}
            {%- for cell in row -%}
                {%- set text = cell | string | replace("'", "''") | replace('\\', "' || chr(92) || '") -%}
                {%- do cells.append('null' if cell is none else "'" ~ text ~ "'") -%}
            {%- endfor -%}
            {%- do values.append('(' ~ cells | join(', ') ~ ')') -%}
        {%- endfor -%}
        {%- set insert = 'insert into ' ~ this.render() ~ ' (' ~ names ~ ') values ' ~ values | join(', ') -%}
        {%- do adapter.add_query(insert, abridge_sql_log=True) -%}
        {%- do loaded.append(insert) -%}
    {%- endfor -%}
    {#- dbt shows one statement as the seed's compiled SQL. -#}
    {{ return(loaded | first) }}
{% endmacro %}
