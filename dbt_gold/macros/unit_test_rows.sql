{#- Rows of ephemeral models for unit tests, whose types dbt cannot look up: every column NULL unless given. -#}
{% macro unit_test_row(types, values) -%}
    select
    {%- for column, type in types.items() %}
        {%- set value = values.get(column) %}
        {%- set text = 'null' if value is none else "'" ~ (value | string | replace("'", "''")) ~ "'" %}
        cast({{ text }} as {{ type }}) as {{ column }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}

{% macro unit_test_posting(job_posting_id) -%}
    {#- Columns of both stg_job_posting_versions and stg_job_postings. -#}
    {%- set types = {
        'job_posting_id': 'varchar(512)', 'company_id': 'varchar(512)', 'title': 'varchar(2048)',
        'given_location': 'varchar(1024)', 'given_country': 'varchar(1024)', 'location': 'varchar(1024)',
        'country': 'varchar(1024)', 'location_key': 'varchar(32)', 'workplace_type': 'varchar(128)',
        'employment_type': 'varchar(128)', 'seniority': 'varchar(256)', 'salary_min': 'numeric(12, 2)',
        'salary_max': 'numeric(12, 2)', 'currency': 'varchar(8)', 'posted_at': 'timestamp',
        'scraped_at': 'timestamp', 'url': 'varchar(8192)'
    } -%}
    {%- set given = {'job_posting_id': job_posting_id, 'given_location': '', 'given_country': ''} -%}
    {{ unit_test_row(types, dict(given, **kwargs)) }}
{%- endmacro %}

{% macro unit_test_location(location_key) -%}
    {%- set types = {
        'given_location': 'varchar(1024)', 'given_country': 'varchar(1024)', 'location': 'varchar(1024)',
        'city': 'varchar(1024)', 'region': 'varchar(1024)', 'country': 'varchar(1024)',
        'location_key': 'varchar(32)', 'postings': 'bigint'
    } -%}
    {%- set given = {'location_key': location_key, 'given_location': '', 'given_country': '', 'postings': 1} -%}
    {{ unit_test_row(types, dict(given, **kwargs)) }}
{%- endmacro %}

{% macro unit_test_enrichment(job_posting_id) -%}
    {%- set types = {
        'job_posting_id': 'varchar(512)', 'skills': 'varchar(65535)', 'seniority_normalised': 'varchar(256)',
        'role_family': 'varchar(512)', 'remote_score': 'double precision', 'model': 'varchar(512)',
        'enriched_at': 'timestamp'
    } -%}
    {{ unit_test_row(types, dict({'job_posting_id': job_posting_id}, **kwargs)) }}
{%- endmacro %}
