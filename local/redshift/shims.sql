-- What Redshift's catalogue has and PostgreSQL's lacks, as far as dbt-redshift, drivers and our own SQL read it.
-- Installed at each start, in one transaction; every statement can be run again.
begin;
set local client_min_messages = warning;
-- Qualified names such as pg_catalog.svv_external_columns are written into dbt-redshift.
set local allow_system_table_mods = on;

-- Which schemas are external, and what the mirror last loaded into them (local/redshift/external.py).
create schema if not exists goldlake_local;
create table if not exists goldlake_local.external_schema (
    schema_name varchar not null primary key,
    glue_database varchar not null
);
create table if not exists goldlake_local.external_table (
    schema_name varchar not null,
    table_name varchar not null,
    location varchar not null,
    columns_fingerprint varchar not null,
    content_fingerprint varchar not null,
    primary key (schema_name, table_name)
);
grant usage on schema goldlake_local to public;
grant select on all tables in schema goldlake_local to public;

-- DuckDB 1.5.5's postgres extension reads and writes in its Redshift mode too (tried over socket and gateway).
create or replace function pg_catalog.version() returns text language sql stable parallel safe
as $$ select 'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), Redshift 1.0.100000'::text $$;

create or replace function pg_catalog.getdate() returns timestamp language sql stable
as $$ select statement_timestamp() at time zone 'UTC' $$;

create or replace function pg_catalog.len(text) returns integer language sql immutable strict parallel safe
as $$ select length($1) $$;

create or replace function pg_catalog.nvl(anyelement, anyelement) returns anyelement
language sql immutable parallel safe
as $$ select coalesce($1, $2) $$;

-- JSON functions of Redshift work on varchar; invalid text is an error unless null_if_invalid is true. An escape may
-- stand for what no text can hold (\u0000, half a surrogate pair): that is invalid, and jsonb knows.
create or replace function pg_catalog.goldlake_is_json(json_text varchar)
returns boolean language sql stable parallel safe
as $$
    select json_text is json and (position('\u' in json_text) = 0 or pg_input_is_valid(json_text, 'jsonb'))
$$;

-- Volatile, and so computed once a row: PostgreSQL would write a common table expression that is read once into the
-- query around it, and parse an array again for each field of each element.
create or replace function pg_catalog.json_array_length(json_text varchar, null_if_invalid boolean default false)
returns integer language sql volatile parallel safe
as $$
    select case when not null_if_invalid or (json_text is json array and pg_catalog.goldlake_is_json(json_text))
                then pg_catalog.json_array_length(json_text::json) end
$$;

create or replace function pg_catalog.json_extract_array_element_text(
    json_text varchar, pos integer, null_if_invalid boolean default false)
returns varchar language sql volatile parallel safe
as $$
    select case when not null_if_invalid or (json_text is json array and pg_catalog.goldlake_is_json(json_text))
                then json_text::json ->> pos end
$$;

create or replace function pg_catalog.json_extract_path_text(json_text varchar, variadic path text[])
returns varchar language sql immutable strict parallel safe
as $$ select json_text::json #>> path $$;

-- With null_if_invalid for paths of one element only: PostgreSQL has nothing behind a variadic parameter.
create or replace function pg_catalog.json_extract_path_text(json_text varchar, path text, null_if_invalid boolean)
returns varchar language sql volatile parallel safe
as $$
    select case when not null_if_invalid or (json_text is json object and pg_catalog.goldlake_is_json(json_text))
                then json_text::json ->> path end
$$;

create or replace function pg_catalog.is_valid_json(json_text varchar)
returns boolean language sql immutable parallel safe
as $$ select json_text is json object $$;

create or replace function pg_catalog.is_valid_json_array(json_text varchar)
returns boolean language sql immutable parallel safe
as $$ select json_text is json array $$;

-- Late binding views do not exist here. The caller names the columns, so the function returns plain records.
create or replace function pg_catalog.pg_get_late_binding_view_cols() returns setof record language plpgsql stable
as $$ begin return; end $$;

create or replace view pg_catalog.svv_external_schemas as
select n.oid::integer as esoid,
       1 as eskind,
       s.schema_name::varchar as schemaname,
       n.nspowner::integer as esowner,
       s.glue_database::varchar as databasename,
       '{}'::varchar as esoptions
  from goldlake_local.external_schema s
  join pg_catalog.pg_namespace n on n.nspname = s.schema_name;

create or replace view pg_catalog.svv_external_tables as
select current_database()::varchar as redshift_database_name,
       s.schema_name::varchar as schemaname,
       c.relname::varchar as tablename,
       'EXTERNAL TABLE'::varchar as tabletype,
       t.location::varchar as location,
       'org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat'::varchar as input_format,
       'org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat'::varchar as output_format,
       'org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe'::varchar as serialization_lib,
       '{}'::varchar as serde_parameters,
       0 as compressed,
       '{}'::varchar as parameters
  from goldlake_local.external_schema s
  join pg_catalog.pg_namespace n on n.nspname = s.schema_name
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relkind = 'r'
  left join goldlake_local.external_table t on t.schema_name = s.schema_name and t.table_name = c.relname;

create or replace view pg_catalog.svv_external_columns as
select current_database()::varchar as redshift_database_name,
       s.schema_name::varchar as schemaname,
       c.relname::varchar as tablename,
       a.attname::varchar as columnname,
       pg_catalog.format_type(a.atttypid, a.atttypmod)::varchar as external_type,
       a.attnum::integer as columnnum,
       0 as part_key,
       'true'::varchar as is_nullable
  from goldlake_local.external_schema s
  join pg_catalog.pg_namespace n on n.nspname = s.schema_name
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relkind = 'r'
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped;

-- Redshift lists external columns in svv_external_columns only, and dbt-redshift adds both lists together: with
-- PostgreSQL's own view each column of an external table would come twice.
do $$
declare
    definition text := rtrim(pg_get_viewdef('information_schema.columns'::regclass), ';');
begin
    if definition not like '%external_schema%' then
        execute 'create or replace view information_schema.columns as select * from (' || definition || ') visible '
             || 'where not exists (select 1 from goldlake_local.external_schema e where e.schema_name = table_schema)';
    end if;
end $$;

create or replace view pg_catalog.svv_redshift_columns as
select current_database()::varchar as database_name,
       n.nspname::varchar as schema_name,
       c.relname::varchar as table_name,
       a.attname::varchar as column_name,
       a.attnum::integer as ordinal_position,
       pg_catalog.format_type(a.atttypid, a.atttypmod)::varchar as data_type,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid)::varchar as column_default,
       case when a.attnotnull then 'NO' else 'YES' end::varchar as is_nullable,
       'none'::varchar as encoding,
       false as distkey,
       0 as sortkey,
       null::varchar as column_acl,
       pg_catalog.col_description(c.oid, a.attnum)::varchar as remarks
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where c.relkind in ('r', 'v', 'm', 'p')
   and n.nspname not in ('pg_catalog', 'information_schema', 'goldlake_local')
   and n.nspname not like 'pg\_toast%'
   and not exists (select 1 from goldlake_local.external_schema e where e.schema_name = n.nspname);

create or replace view pg_catalog.svv_table_info as
select current_database()::varchar as "database",
       n.nspname::varchar as "schema",
       c.oid as table_id,
       c.relname::varchar as "table",
       'N'::varchar as encoded,
       'AUTO(ALL)'::varchar as diststyle,
       null::varchar as sortkey1,
       0 as max_varchar,
       'none'::varchar as sortkey1_enc,
       0 as sortkey_num,
       (pg_catalog.pg_total_relation_size(c.oid) / 1048576)::bigint as size,
       0.0::numeric(10,4) as pct_used,
       0::bigint as empty,
       0.0::numeric(5,2) as unsorted,
       0.0::numeric(5,2) as stats_off,
       greatest(c.reltuples, 0)::numeric(38,0) as tbl_rows,
       null::numeric(19,2) as skew_sortkey1,
       null::numeric(19,2) as skew_rows,
       greatest(c.reltuples, 0)::numeric(38,0) as estimated_visible_rows,
       null::varchar as risk_event,
       0.0::numeric(10,4) as vacuum_sort_benefit
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r'
   and n.nspname not in ('pg_catalog', 'information_schema', 'goldlake_local')
   and not exists (select 1 from goldlake_local.external_schema e where e.schema_name = n.nspname);

create or replace view pg_catalog.svv_relation_privileges as
select p.table_schema::varchar as namespace_name,
       p.table_name::varchar as relation_name,
       p.privilege_type::varchar as privilege_type,
       0 as identity_id,
       p.grantee::varchar as identity_name,
       case when p.grantee = 'PUBLIC' then 'public' else 'user' end::varchar as identity_type,
       p.is_grantable = 'YES' as admin_option
  from information_schema.table_privileges p;

create or replace view pg_catalog.svv_mv_info as
select null::varchar as database_name, null::varchar as schema_name, null::varchar as user_name,
       null::varchar as name, null::boolean as is_stale, null::integer as state, null::boolean as autorefresh,
       null::boolean as autorewrite
 where false;

grant select on pg_catalog.svv_external_schemas, pg_catalog.svv_external_tables, pg_catalog.svv_external_columns,
    pg_catalog.svv_redshift_columns, pg_catalog.svv_table_info, pg_catalog.svv_relation_privileges,
    pg_catalog.svv_mv_info, information_schema.columns to public;
commit;
