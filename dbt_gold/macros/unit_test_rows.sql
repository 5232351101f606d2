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
    {%- set types = {
        'job_posting_id': 'varchar(512)', 'company_id': 'varchar(512)', 'title': 'varchar(2048)',
        'location': 'varchar(1024)', 'city': 'varchar(1024)', 'region': 'varchar(1024)', 'country': 'varchar(1024)',
        'location_key': 'varchar(32)', 'workplace_type': 'varchar(128)', 'employment_type': 'varchar(128)',
        'seniority': 'varchar(256)', 'salary_min': 'numeric(12, 2)', 'salary_max': 'numeric(12, 2)',
        'currency': 'varchar(8)', 'posted_at': 'timestamp', 'scraped_at': 'timestamp', 'url': 'varchar(8192)',
        'version_rank': 'bigint'
    } -%}
    {{ unit_test_row(types, dict({'job_posting_id': job_posting_id, 'version_rank': 1}, **kwargs)) }}
{%- endmacro %}

{% macro unit_test_enrichment(job_posting_id) -%}
    {%- set types = {
        'job_posting_id': 'varchar(512)', 'skills': 'varchar(65535)', 'seniority_normalised': 'varchar(256)',
        'role_family': 'varchar(512)', 'remote_score': 'double precision', 'model': 'varchar(512)',
        'enriched_at': 'timestamp', 'version_rank': 'bigint'
    } -%}
    {{ unit_test_row(types, dict({'job_posting_id': job_posting_id, 'version_rank': 1}, **kwargs)) }}
{%- endmacro %}

{% macro unit_test_skill(job_posting_id, skill_key) -%}
    {%- set types = {
        'job_posting_id': 'varchar(512)', 'skill_key': 'varchar(32)', 'skill_name': 'varchar(512)',
        'category': 'varchar(256)', 'confidence': 'numeric(4, 3)', 'is_newest': 'boolean'
    } -%}
    {%- set given = {'job_posting_id': job_posting_id, 'skill_key': skill_key, 'is_newest': true} -%}
    {{ unit_test_row(types, dict(given, **kwargs)) }}
{%- endmacro %}
