-- What the gateway knows of external schemas, UNLOAD and COPY; the views of it that Redshift has. Installed after
-- shims.sql at each start, in one transaction; every statement can be run again.
begin;
set local client_min_messages = warning;
set local allow_system_table_mods = on;

-- The tables themselves are made by shims.sql, whose views read them. These columns came later than some data.
-- The role is empty for the schemas that are there from the start: the emulator's administrator reads for them.
alter table goldlake_local.external_schema add column if not exists iam_role varchar not null default '';
alter table goldlake_local.external_schema add column if not exists region varchar;
-- What Glue says of the table (spectrum/tables.py, `described`).
alter table goldlake_local.external_table add column if not exists described text not null default '{}';

create table if not exists goldlake_local.load_error (
    number bigint generated always as identity,
    user_name varchar, session_pid integer, database_name varchar, table_name varchar, at timestamp,
    file_name varchar, line_number bigint, column_name varchar, column_type varchar, column_length varchar,
    raw_line varchar, raw_field_value varchar, error_code integer, error_message varchar
);
grant usage on schema goldlake_local to public;
grant select on all tables in schema goldlake_local to public;

-- A session's own counts, as UNLOAD and COPY leave them.
create or replace function pg_catalog.pg_last_unload_count() returns bigint language sql stable
as $$ select coalesce(nullif(current_setting('goldlake.last_unload_count', true), ''), '0')::bigint $$;
create or replace function pg_catalog.pg_last_copy_count() returns bigint language sql stable
as $$ select coalesce(nullif(current_setting('goldlake.last_copy_count', true), ''), '0')::bigint $$;

create or replace view pg_catalog.stl_load_errors as
select coalesce((select usesysid::integer from pg_user where usename = user_name), 0) as userid,
       0 as slice, 0 as tbl, at as starttime, session_pid as session, number as query, file_name as filename,
       line_number, column_name as colname, column_type as type, column_length as col_length, 0 as position,
       raw_line, raw_field_value, error_code as err_code, error_message as err_reason
  from goldlake_local.load_error;
create or replace view pg_catalog.sys_load_error_detail as
select coalesce((select usesysid::integer from pg_user where usename = user_name), 0) as user_id,
       number as query_id, session_pid as session_id, 0::bigint as transaction_id, database_name, 0 as table_id,
       at as start_time, file_name, line_number, column_name, column_type, column_length, 0 as position, error_code,
       error_message
  from goldlake_local.load_error;

create or replace view pg_catalog.svv_external_schemas as
select n.oid::integer as esoid,
       1 as eskind,
       s.schema_name::varchar as schemaname,
       n.nspowner::integer as esowner,
       s.glue_database::varchar as databasename,
       json_build_object('REGION', coalesce(s.region, 'us-east-1'), 'IAM_ROLE', s.iam_role)::varchar as esoptions
  from goldlake_local.external_schema s
  join pg_catalog.pg_namespace n on n.nspname = s.schema_name;

create or replace view pg_catalog.svv_external_tables as
select current_database()::varchar as redshift_database_name,
       t.schema_name::varchar as schemaname,
       t.table_name::varchar collate "C" as tablename,
       'TABLE'::varchar as tabletype,
       t.location::varchar as location,
       (t.described::json ->> 'input_format')::varchar as input_format,
       (t.described::json ->> 'output_format')::varchar as output_format,
       (t.described::json ->> 'library')::varchar as serialization_lib,
       (t.described::json ->> 'serde')::varchar as serde_parameters,
       0 as compressed,
       (t.described::json ->> 'parameters')::varchar as parameters
  from goldlake_local.external_table t
  join goldlake_local.external_schema s on s.schema_name = t.schema_name
  join pg_catalog.pg_namespace n on n.nspname = s.schema_name;

create or replace view pg_catalog.svv_external_columns as
select current_database()::varchar as redshift_database_name,
       t.schema_name::varchar as schemaname,
       t.table_name::varchar collate "C" as tablename,
       (c.item ->> 0)::varchar collate "C" as columnname,
       (c.item ->> 1)::varchar as external_type,
       c.number::integer as columnnum,
       case when (c.item ->> 2)::boolean
            then sum(case when (c.item ->> 2)::boolean then 1 else 0 end)
                 over (partition by t.schema_name, t.table_name order by c.number)::integer else 0 end as part_key,
       'true'::varchar as is_nullable
  from goldlake_local.external_table t
  join goldlake_local.external_schema s on s.schema_name = t.schema_name
  join pg_catalog.pg_namespace n on n.nspname = s.schema_name
 cross join lateral json_array_elements(t.described::json -> 'columns') with ordinality as c(item, number);

create or replace view pg_catalog.svv_external_databases as
select distinct 1 as eskind, s.glue_database::varchar as databasename, null::varchar as location,
       '{}'::varchar as parameters
  from goldlake_local.external_schema s join pg_catalog.pg_namespace n on n.nspname = s.schema_name;

grant select on pg_catalog.stl_load_errors, pg_catalog.sys_load_error_detail, pg_catalog.svv_external_schemas,
    pg_catalog.svv_external_tables, pg_catalog.svv_external_columns, pg_catalog.svv_external_databases to public;
commit;
