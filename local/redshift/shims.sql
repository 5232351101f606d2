-- What Redshift's catalogue has and PostgreSQL's lacks, as far as dbt-redshift, drivers and our own SQL read it.
-- Installed at each start, in one transaction; every statement can be run again.
begin;
set local client_min_messages = warning;
-- Qualified names such as pg_catalog.svv_external_columns are written into dbt-redshift.
set local allow_system_table_mods = on;

-- Which schemas are external, and what spectrum/ last loaded into them; its own columns are in spectrum/catalog.sql.
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

-- With null_if_invalid for longer paths: the dialect puts it in front of them.
create or replace function pg_catalog.json_extract_path_text(
    json_text varchar, null_if_invalid boolean, variadic path text[])
returns varchar language plpgsql volatile parallel safe
as $$
begin
    return case when not null_if_invalid or (json_text is json object and pg_catalog.goldlake_is_json(json_text))
                then json_text::json #>> path end;
end $$;

-- Refusals of statements with bind parameters; the last argument uses them up.
create or replace function pg_catalog.goldlake_refuse(code text, message text, ignored text)
returns integer language plpgsql volatile
as $$ begin raise exception using errcode = code, message = message; end $$;

-- Dates. "Date and time functions" in the SQL reference; the dialect gives the part of a date as a text.
create or replace function pg_catalog.sysdate() returns timestamp language sql stable
as $$ select transaction_timestamp() at time zone 'UTC' $$;

create or replace function goldlake_local.date_interval(part text, amount bigint)
returns interval language sql immutable strict parallel safe
as $$
    select amount * case lower(part)
        when 'quarter' then interval '3 months'
        when 'doy' then interval '1 day'
        when 'dow' then interval '1 day'
        else ('1 ' || part)::interval end
$$;

create or replace function pg_catalog.dateadd(part text, amount bigint, value timestamp)
returns timestamp language sql immutable strict parallel safe
as $$ select value + goldlake_local.date_interval(part, amount) $$;

create or replace function pg_catalog.dateadd(part text, amount bigint, value date)
returns timestamp language sql immutable strict parallel safe
as $$ select value::timestamp + goldlake_local.date_interval(part, amount) $$;

create or replace function pg_catalog.dateadd(part text, amount bigint, value timestamptz)
returns timestamptz language sql stable strict parallel safe
as $$ select value + goldlake_local.date_interval(part, amount) $$;

create or replace function pg_catalog.dateadd(part text, amount bigint, value time)
returns time language sql immutable strict parallel safe
as $$ select value + goldlake_local.date_interval(part, amount) $$;

-- A text without a type is a timestamp.
create or replace function pg_catalog.dateadd(part text, amount bigint, value text)
returns timestamp language sql immutable strict parallel safe
as $$ select value::timestamp + goldlake_local.date_interval(part, amount) $$;

-- How many boundaries of a part lie before a moment; weeks begin on Sunday.
create or replace function goldlake_local.boundaries(part text, value timestamp)
returns bigint language plpgsql immutable strict parallel safe
as $$
begin
    return case lower(part)
        when 'quarter' then extract(year from value) * 4 + extract(quarter from value)
        when 'month' then extract(year from value) * 12 + extract(month from value)
        when 'week' then floor((value::date - date '1970-01-04') / 7.0)
        when 'day' then value::date - date '1970-01-01'
        when 'doy' then value::date - date '1970-01-01'
        when 'dow' then value::date - date '1970-01-01'
        when 'hour' then floor(extract(epoch from value) / 3600)
        when 'minute' then floor(extract(epoch from value) / 60)
        when 'second' then floor(extract(epoch from value))
        when 'milliseconds' then floor(extract(epoch from value) * 1000)
        when 'microseconds' then floor(extract(epoch from value) * 1000000)
        -- year, decade, century, millennium; another part is an error of date_part
        else date_part(part, value) end::bigint;
end $$;

create or replace function pg_catalog.datediff(part text, first timestamp, second timestamp)
returns bigint language sql immutable strict parallel safe
as $$ select goldlake_local.boundaries(part, second) - goldlake_local.boundaries(part, first) $$;

create or replace function pg_catalog.datediff(part text, first date, second date)
returns bigint language sql immutable strict parallel safe
as $$ select goldlake_local.boundaries(part, second::timestamp) - goldlake_local.boundaries(part, first::timestamp) $$;

create or replace function pg_catalog.datediff(part text, first timestamptz, second timestamptz)
returns bigint language sql stable strict parallel safe
as $$
    select goldlake_local.boundaries(part, second at time zone 'UTC')
         - goldlake_local.boundaries(part, first at time zone 'UTC')
$$;

create or replace function pg_catalog.datediff(part text, first time, second time)
returns bigint language sql immutable strict parallel safe
as $$
    select goldlake_local.boundaries(part, timestamp '1970-01-01' + second)
         - goldlake_local.boundaries(part, timestamp '1970-01-01' + first)
$$;

-- A date is truncated to a timestamp without zone; PostgreSQL makes one with a zone of it.
create or replace function pg_catalog.date_trunc(part text, value date)
returns timestamp language sql immutable strict parallel safe
as $$ select pg_catalog.date_trunc(part, value::timestamp) $$;

create or replace function pg_catalog.trunc(timestamp) returns date language sql immutable strict parallel safe
as $$ select $1::date $$;

create or replace function pg_catalog.last_day(timestamp) returns date language sql immutable strict parallel safe
as $$ select (pg_catalog.date_trunc('month', $1) + interval '1 month - 1 day')::date $$;

create or replace function pg_catalog.last_day(date) returns date language sql immutable strict parallel safe
as $$ select pg_catalog.last_day($1::timestamp) $$;

-- The last day of a month leads to the last day of the other, unlike with DATEADD.
create or replace function pg_catalog.add_months(value timestamp, amount bigint)
returns timestamp language sql immutable strict parallel safe
as $$
    select case when value::date = pg_catalog.last_day(value)
                then pg_catalog.last_day(value + amount * interval '1 month') + value::time
                else value + amount * interval '1 month' end
$$;

create or replace function pg_catalog.add_months(value date, amount bigint)
returns timestamp language sql immutable strict parallel safe
as $$ select pg_catalog.add_months(value::timestamp, amount) $$;

-- Whole months between equal days, or between last days of months; else with 31 days a month.
create or replace function pg_catalog.months_between(first timestamp, second timestamp)
returns float8 language sql immutable strict parallel safe
as $$
    select ((extract(year from first) - extract(year from second)) * 12
            + extract(month from first) - extract(month from second)
            + case when extract(day from first) = extract(day from second)
                     or (first::date = pg_catalog.last_day(first) and second::date = pg_catalog.last_day(second))
                   then 0
                   else (extract(day from first) - extract(day from second)
                         + extract(epoch from first::time - second::time) / 86400) / 31 end)::float8
$$;

create or replace function pg_catalog.next_day(value timestamp, weekday text)
returns date language sql immutable strict parallel safe
as $$
    select value::date + 1 + ((
        position(lower(left(weekday, 2)) in 'sumotuwethfrsa') / 2 - extract(dow from value)::int + 6) % 7)
$$;

create or replace function pg_catalog.date_part_year(date) returns integer language sql immutable strict parallel safe
as $$ select extract(year from $1)::integer $$;

create or replace function pg_catalog.date_cmp(date, date) returns integer language sql immutable strict parallel safe
as $$ select sign($1 - $2)::integer $$;

create or replace function pg_catalog.convert_timezone(target text, value timestamp)
returns timestamp language sql immutable strict parallel safe
as $$ select value at time zone 'UTC' at time zone target $$;

create or replace function pg_catalog.convert_timezone(source text, target text, value timestamp)
returns timestamp language sql immutable strict parallel safe
as $$ select value at time zone source at time zone target $$;

create or replace function pg_catalog.to_timestamp(value text, format text, is_strict boolean)
returns timestamptz language sql stable strict parallel safe
as $$ select pg_catalog.to_timestamp(value, format) $$;

create or replace function pg_catalog.to_date(value text, format text, is_strict boolean)
returns date language sql stable strict parallel safe
as $$ select pg_catalog.to_date(value, format) $$;

-- Texts.
create or replace function pg_catalog.textlen(text) returns integer language sql immutable strict parallel safe
as $$ select length($1) $$;

create or replace function pg_catalog.charindex(part text, whole text)
returns integer language sql immutable strict parallel safe
as $$ select strpos(whole, part) $$;

create or replace function pg_catalog.replicate(text, integer) returns text language sql immutable strict parallel safe
as $$ select repeat($1, $2) $$;

-- NULL with anything is NULL, and there are two arguments.
create or replace function goldlake_local.concat(text, text) returns text language sql immutable parallel safe
as $$ select $1 || $2 $$;
create or replace function goldlake_local.concat(text, anynonarray) returns text language sql stable parallel safe
as $$ select $1 || $2::text $$;
create or replace function goldlake_local.concat(anynonarray, text) returns text language sql stable parallel safe
as $$ select $1::text || $2 $$;

-- All matches are replaced, with nothing unless told. With the flag p, groups are written $1.
create or replace function goldlake_local.regexp_replace(
    source text, pattern text, replacement text default '', pos integer default 1, params text default 'c')
returns text language sql immutable strict parallel safe
as $$
    select pg_catalog.regexp_replace(
        source, pattern,
        case when strpos(params, 'p') > 0
             then pg_catalog.regexp_replace(replacement, '[$]([0-9])', repeat(chr(92), 3) || '1', 'g')
             else replacement end,
        pos, 0, case when strpos(params, 'i') > 0 then 'i' else 'c' end)
$$;

-- No match is an empty text.
create or replace function goldlake_local.regexp_substr(
    source text, pattern text, pos integer default 1, occurrence integer default 1, params text default 'c')
returns text language sql immutable strict parallel safe
as $$
    select coalesce(
        pg_catalog.regexp_substr(
            source, pattern, pos, occurrence, case when strpos(params, 'i') > 0 then 'i' else 'c' end,
            case when strpos(params, 'e') > 0 then 1 else 0 end),
        '')
$$;

create or replace function pg_catalog.strtol(digits text, base integer)
returns bigint language plpgsql immutable strict parallel safe
as $$
declare
    rest text := lower(trim(digits));
    negative boolean := left(rest, 1) = '-';
    result bigint := 0;
    value integer;
begin
    rest := ltrim(rest, '+-');
    if base = 16 and left(rest, 2) = '0x' then rest := substr(rest, 3); end if;
    for place in 1 .. length(rest) loop
        value := strpos('0123456789abcdefghijklmnopqrstuvwxyz', substr(rest, place, 1)) - 1;
        if value < 0 or value >= base then
            raise exception using errcode = '22P02',
                message = format('The input %s is not valid to be converted to base %s', digits, base);
        end if;
        result := result * base + value;
    end loop;
    return case when negative then -result else result end;
end $$;

-- FNV-1a with 64 bits.
create or replace function pg_catalog.fnv_hash(value text, seed bigint default null)
returns bigint language plpgsql immutable parallel safe
as $$
declare
    size constant numeric := 18446744073709551616;
    state numeric := coalesce(seed::numeric, 14695981039346656037);
    bytes bytea := convert_to(coalesce(value, ''), 'UTF8');
    low integer;
begin
    if state < 0 then state := state + size; end if;
    for place in 0 .. length(bytes) - 1 loop
        low := (state % 256)::integer;
        state := ((state - low + (low # get_byte(bytes, place))) * 1099511628211) % size;
    end loop;
    return case when state >= size / 2 then state - size else state end;
end $$;

create or replace function pg_catalog.sha2(value text, bits integer)
returns varchar language sql immutable strict parallel safe
as $$
    select pg_catalog.encode(case bits when 224 then sha224(convert_to(value, 'UTF8'))
                                       when 384 then sha384(convert_to(value, 'UTF8'))
                                       when 512 then sha512(convert_to(value, 'UTF8'))
                                       else sha256(convert_to(value, 'UTF8')) end, 'hex')
$$;

-- Numbers. PostgreSQL rounds no float8 to digits.
create or replace function pg_catalog.round(float8, integer) returns float8 language sql immutable strict parallel safe
as $$ select pg_catalog.round($1::numeric, $2)::float8 $$;
create or replace function pg_catalog.trunc(float8, integer) returns float8 language sql immutable strict parallel safe
as $$ select pg_catalog.trunc($1::numeric, $2)::float8 $$;
create or replace function pg_catalog.dexp(float8) returns float8 language sql immutable strict parallel safe
as $$ select exp($1) $$;
create or replace function pg_catalog.dlog1(float8) returns float8 language sql immutable strict parallel safe
as $$ select ln($1) $$;
create or replace function pg_catalog.dlog10(float8) returns float8 language sql immutable strict parallel safe
as $$ select log($1) $$;

-- Aggregates. The average of integers is an integer.
create or replace function goldlake_local.avg_final(numeric[]) returns bigint language sql immutable parallel safe
as $$ select case when $1[1] > 0 then trunc($1[2] / $1[1])::bigint end $$;
create or replace function goldlake_local.avg_add(numeric[], bigint) returns numeric[]
language sql immutable parallel safe
as $$ select case when $2 is null then $1 else array[$1[1] + 1, $1[2] + $2] end $$;
create or replace aggregate goldlake_local.avg(bigint) (
    sfunc = goldlake_local.avg_add, stype = numeric[], finalfunc = goldlake_local.avg_final, initcond = '{0,0}');
create or replace function goldlake_local.avg_add(numeric[], integer) returns numeric[]
language sql immutable parallel safe
as $$ select goldlake_local.avg_add($1, $2::bigint) $$;
create or replace function goldlake_local.avg_add(numeric[], smallint) returns numeric[]
language sql immutable parallel safe
as $$ select goldlake_local.avg_add($1, $2::bigint) $$;
create or replace aggregate goldlake_local.avg(integer) (
    sfunc = goldlake_local.avg_add, stype = numeric[], finalfunc = goldlake_local.avg_final, initcond = '{0,0}');
create or replace aggregate goldlake_local.avg(smallint) (
    sfunc = goldlake_local.avg_add, stype = numeric[], finalfunc = goldlake_local.avg_final, initcond = '{0,0}');
create or replace aggregate goldlake_local.avg(numeric) (
    sfunc = numeric_avg_accum, stype = internal, finalfunc = numeric_avg);
create or replace aggregate goldlake_local.avg(float8) (
    sfunc = float8_accum, stype = float8[], finalfunc = float8_avg, initcond = '{0,0,0}');
create or replace aggregate goldlake_local.avg(interval) (
    sfunc = interval_avg_accum, stype = internal, finalfunc = interval_avg);

create or replace function goldlake_local.listagg_add(state text, value anyelement, delimiter text)
returns text language plpgsql immutable parallel safe
as $$
begin
    return case when value is null then state when state is null then value::text
                else state || coalesce(delimiter, '') || value::text end;
end $$;
create or replace function goldlake_local.listagg_add(state text, value anyelement)
returns text language plpgsql immutable parallel safe
as $$ begin return case when value is null then state else coalesce(state, '') || value::text end; end $$;
create or replace aggregate pg_catalog.listagg(anyelement, text) (sfunc = goldlake_local.listagg_add, stype = text);
create or replace aggregate pg_catalog.listagg(anyelement) (sfunc = goldlake_local.listagg_add, stype = text);

create or replace function goldlake_local.median_final(numeric[]) returns numeric
language sql immutable strict parallel safe
as $$
    select pg_catalog.avg(value) from (
        select value, row_number() over (order by value) as place, count(*) over () as number
          from unnest($1) value where value is not null) ordered
     where place in ((number + 1) / 2, number / 2 + 1)
$$;
create or replace function goldlake_local.median_final(float8[]) returns float8
language sql immutable strict parallel safe
as $$ select pg_catalog.percentile_cont(0.5) within group (order by value) from unnest($1) value $$;
create or replace function goldlake_local.median_final(timestamp[]) returns timestamp
language sql immutable strict parallel safe
as $$
    select timestamp '1970-01-01'
         + pg_catalog.percentile_cont(0.5) within group (order by value - timestamp '1970-01-01')
      from unnest($1) value
$$;
create or replace function goldlake_local.median_add(numeric[], bigint) returns numeric[]
language sql immutable parallel safe
as $$ select array_append($1, $2::numeric) $$;
create or replace function goldlake_local.median_add(numeric[], integer) returns numeric[]
language sql immutable parallel safe
as $$ select array_append($1, $2::numeric) $$;
create or replace aggregate pg_catalog.median(bigint) (
    sfunc = goldlake_local.median_add, stype = numeric[], finalfunc = goldlake_local.median_final);
create or replace aggregate pg_catalog.median(integer) (
    sfunc = goldlake_local.median_add, stype = numeric[], finalfunc = goldlake_local.median_final);
create or replace aggregate pg_catalog.median(numeric) (
    sfunc = array_append, stype = numeric[], finalfunc = goldlake_local.median_final);
create or replace aggregate pg_catalog.median(float8) (
    sfunc = array_append, stype = float8[], finalfunc = goldlake_local.median_final);
create or replace aggregate pg_catalog.median(timestamp) (
    sfunc = array_append, stype = timestamp[], finalfunc = goldlake_local.median_final);

-- Percentiles with a window. The share stands in front of the values.
create or replace function goldlake_local.percentile_add(state float8[], value float8, share float8)
returns float8[] language sql immutable parallel safe
as $$ select case when state is null then array[share, value] else state || value end $$;
create or replace function goldlake_local.percentile_cont_final(state float8[])
returns float8 language sql immutable strict parallel safe
as $$ select pg_catalog.percentile_cont(state[1]) within group (order by value) from unnest(state[2:]) value $$;
create or replace function goldlake_local.percentile_disc_final(state float8[])
returns float8 language sql immutable strict parallel safe
as $$ select pg_catalog.percentile_disc(state[1]) within group (order by value) from unnest(state[2:]) value $$;
create or replace aggregate goldlake_local.percentile_cont(float8, float8) (
    sfunc = goldlake_local.percentile_add, stype = float8[], finalfunc = goldlake_local.percentile_cont_final);
create or replace aggregate goldlake_local.percentile_disc(float8, float8) (
    sfunc = goldlake_local.percentile_add, stype = float8[], finalfunc = goldlake_local.percentile_disc_final);

-- SUPER and VARBYTE. A text in a SUPER has no quotes when it is cast.
create or replace function goldlake_local.super_text(jsonb) returns text language sql immutable strict parallel safe
as $$ select $1 #>> '{}' $$;
create or replace function goldlake_local.super_varchar(jsonb) returns varchar
language sql immutable strict parallel safe
as $$ select ($1 #>> '{}')::varchar $$;
do $$
begin
    if to_regtype('pg_catalog.super') is null then create domain pg_catalog.super as jsonb; end if;
    if to_regtype('pg_catalog.varbyte') is null then create domain pg_catalog.varbyte as bytea; end if;
    if not exists (select from pg_cast where castsource = 'jsonb'::regtype and casttarget = 'varchar'::regtype) then
        create cast (jsonb as text) with function goldlake_local.super_text(jsonb);
        create cast (jsonb as varchar) with function goldlake_local.super_varchar(jsonb);
    end if;
end $$;

create or replace function pg_catalog.json_parse(text) returns super language sql immutable strict parallel safe
as $$ select $1::jsonb $$;
create or replace function pg_catalog.can_json_parse(text) returns boolean language sql immutable strict parallel safe
as $$ select pg_input_is_valid($1, 'jsonb') $$;

create or replace function goldlake_local.json_text(value jsonb) returns text
language plpgsql immutable strict parallel safe
as $$
begin
    return case jsonb_typeof(value)
        when 'object' then (select '{' || coalesce(string_agg(to_json(key)::text || ':'
                                                   || goldlake_local.json_text(item), ','), '') || '}'
                              from jsonb_each(value) fields(key, item))
        when 'array' then (select '[' || coalesce(string_agg(goldlake_local.json_text(item), ','
                                                             order by place), '') || ']'
                             from jsonb_array_elements(value) with ordinality items(item, place))
        when 'string' then to_json(value #>> '{}')::text
        else value::text end;
end $$;
create or replace function pg_catalog.json_serialize(super) returns varchar
language sql immutable strict parallel safe
as $$ select goldlake_local.json_text($1) $$;

create or replace function pg_catalog.get_array_length(super) returns bigint language sql immutable strict parallel safe
as $$ select case when jsonb_typeof($1) = 'array' then jsonb_array_length($1) end $$;
create or replace function pg_catalog.json_typeof(super) returns varchar language sql immutable strict parallel safe
as $$ select jsonb_typeof($1) $$;
create or replace function pg_catalog.is_array(super) returns boolean language sql immutable strict parallel safe
as $$ select jsonb_typeof($1) = 'array' $$;
create or replace function pg_catalog.is_object(super) returns boolean language sql immutable strict parallel safe
as $$ select jsonb_typeof($1) = 'object' $$;
create or replace function pg_catalog.is_varchar(super) returns boolean language sql immutable strict parallel safe
as $$ select jsonb_typeof($1) = 'string' $$;
create or replace function pg_catalog.is_scalar(super) returns boolean language sql immutable strict parallel safe
as $$ select jsonb_typeof($1) not in ('array', 'object') $$;
create or replace function pg_catalog.array_concat(super, super) returns super
language sql immutable strict parallel safe
as $$ select $1::jsonb || $2::jsonb $$;
create or replace function pg_catalog.split_to_array(value text, delimiter text default ',') returns super
language sql immutable strict parallel safe
as $$ select to_jsonb(string_to_array(value, delimiter)) $$;
create or replace function pg_catalog.subarray(value super, first integer, number integer) returns super
language sql immutable strict parallel safe
as $$
    select coalesce(jsonb_agg(item order by place), '[]')
      from jsonb_array_elements(value) with ordinality items(item, place)
     where place > first and place <= first + number
$$;

-- What is no array has no elements.
create or replace function pg_catalog.goldlake_unnest(value jsonb, out item jsonb, out index bigint)
returns setof record language sql immutable strict parallel safe
as $$
    select item, place - 1
      from jsonb_array_elements(case when jsonb_typeof(value) = 'array' then value else '[]' end)
           with ordinality items(item, place)
$$;

-- Sessions.
create or replace function pg_catalog.current_user_id() returns integer language sql stable
as $$ select usesysid::integer from pg_catalog.pg_user where usename = current_user $$;
create or replace function pg_catalog.pg_last_query_id() returns bigint language sql stable as $$ select -1::bigint $$;
create or replace function pg_catalog.pg_last_copy_id() returns integer language sql stable as $$ select -1 $$;

-- ALTER TABLE … APPEND: columns go by their names.
create or replace function goldlake_local.has_columns_beside(one regclass, other regclass) returns boolean
language sql stable
as $$
    select exists (select attname from pg_attribute where attrelid = one and attnum > 0 and not attisdropped
                   except
                   select attname from pg_attribute where attrelid = other and attnum > 0 and not attisdropped)
$$;
create or replace function pg_catalog.goldlake_append(target regclass, source regclass, option text)
returns void language plpgsql
as $$
declare
    shared text;
begin
    if option <> 'ignoreextra' and goldlake_local.has_columns_beside(source, target) then
        raise exception using errcode = '0A000',
            message = 'Source table contains columns which do not exist in the target table.';
    end if;
    if option <> 'filltarget' and goldlake_local.has_columns_beside(target, source) then
        raise exception using errcode = '0A000',
            message = 'Target table contains columns which do not exist in the source table.';
    end if;
    select string_agg(quote_ident(t.attname), ', ' order by t.attnum) into shared
      from pg_attribute t join pg_attribute s on s.attrelid = source and s.attname = t.attname
     where t.attrelid = target and t.attnum > 0 and not t.attisdropped and s.attnum > 0 and not s.attisdropped;
    execute format('insert into %s (%s) select %s from %s', target, shared, shared, source);
    execute format('delete from %s', source);
end $$;

-- Late-binding views: CREATE VIEW … WITH NO SCHEMA BINDING.
-- The query is the body of a function, which PostgreSQL binds when it is called, and the view reads the function; so
-- tables below may be dropped and made again. Column names and types must be known before a call: they are looked up
-- when the view is made, and again when a table that the query names is made or altered.
create table if not exists goldlake_local.late_view (
    view_oid oid not null primary key,
    function_name text not null,
    columns text not null,
    query text not null,
    signature text
);
create sequence if not exists goldlake_local.late_view_number;
grant usage on sequence goldlake_local.late_view_number to public;

-- Columns of a query as JSON: pairs of name and type. NULL when what it reads is not there.
create or replace function goldlake_local.late_signature(query text) returns text language plpgsql
as $$
declare
    result text;
begin
    begin
        execute 'create temp view goldlake_probe as ' || query;
        select json_agg(json_build_array(attname, format_type(atttypid, atttypmod)) order by attnum) into result
          from pg_attribute where attrelid = 'pg_temp.goldlake_probe'::regclass and attnum > 0;
        execute 'drop view pg_temp.goldlake_probe';
    exception
        when undefined_table or undefined_column or invalid_schema_name or undefined_function
             or insufficient_privilege then
            return null;
    end;
    return result;
end $$;

-- A caller cannot write to the registry himself: he writes about views of his own only.
create or replace function goldlake_local.register_late_view(
    owner name, view regclass, function_name text, columns text, query text, signature text)
returns void language plpgsql security definer set search_path = pg_catalog
as $$
begin
    if not exists (select from pg_class where oid = view and pg_get_userbyid(relowner) = owner
                      and pg_has_role(session_user, relowner, 'member')) then
        raise exception 'must be owner of view %', view;
    end if;
    insert into goldlake_local.late_view values (view, function_name, columns, query, signature)
        on conflict (view_oid) do update set function_name = excluded.function_name, columns = excluded.columns,
            query = excluded.query, signature = excluded.signature;
end $$;

create or replace function goldlake_local.make_late_view(name text, columns text, query text, signature text)
returns void language plpgsql
as $$
declare
    names text[] := parse_ident(name);
    function_name text := quote_ident(case when cardinality(names) > 1 then names[cardinality(names) - 1]
                                           else current_schema() end)
                       || '.goldlake_late_' || nextval('goldlake_local.late_view_number');
    returned text;
    shown text;
begin
    perform set_config('check_function_bodies', 'off', true);
    if signature is null then
        -- The call says what is missing.
        execute format('create function %s() returns table (goldlake_unbound integer) language plpgsql stable '
                       'security definer as %L', function_name,
                       format('begin return query execute %L; end',
                              'select 1 from (' || query || chr(10) || ') unbound'));
        execute format('create view %s as select * from %s()', name, function_name);
    else
        -- What a function returns has no lengths; the view's columns have.
        select string_agg(format('%I %s', item ->> 0, item ->> 1), ', ' order by place),
               string_agg(format('%1$I::%2$s as %1$I', item ->> 0, item ->> 1), ', ' order by place)
          into returned, shown
          from json_array_elements(signature::json) with ordinality items(item, place);
        execute format('create function %s() returns table (%s) language sql stable security definer as %L',
                       function_name, returned, query);
        execute format('create view %s %s as select %s from %s()', name, columns, shown, function_name);
    end if;
    perform set_config('check_function_bodies', 'on', true);
    execute format('revoke execute on function %s() from public', function_name);
    perform goldlake_local.register_late_view(current_user, name::regclass, function_name, columns, query, signature);
end $$;

create or replace function goldlake_local.restore_privileges(view regclass, privileges aclitem[])
returns void language plpgsql
as $$
declare
    privilege record;
begin
    for privilege in
        select p.privilege_type as kind,
               case when p.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(p.grantee)) end as grantee
          from aclexplode(privileges) p join pg_class c on c.oid = view where p.grantee <> c.relowner
    loop
        execute format('grant %s on %s to %s', privilege.kind, view, privilege.grantee);
    end loop;
end $$;

create or replace function pg_catalog.goldlake_create_late_view(
    name text, columns text, query text, replaced boolean)
returns void language plpgsql
as $$
declare
    present regclass := to_regclass(name);
    privileges aclitem[];
    found_signature text;
begin
    perform set_config('goldlake_local.binding', 'on', true);
    found_signature := goldlake_local.late_signature(query);
    if replaced and present is not null then
        select relacl into privileges from pg_class where oid = present;
        execute format('drop view %s', name);
    end if;
    perform goldlake_local.make_late_view(name, columns, query, found_signature);
    if privileges is not null then
        perform goldlake_local.restore_privileges(name::regclass, privileges);
    end if;
    perform set_config('goldlake_local.binding', 'off', true);
end $$;

-- Makes a late-binding view again when its columns are others now; one that others stand on is left as it is.
create or replace function goldlake_local.bind_again(view oid) returns void language plpgsql
as $$
declare
    kept goldlake_local.late_view;
    relation pg_class;
    name text;
    found_signature text;
begin
    select * into kept from goldlake_local.late_view where view_oid = view;
    select * into relation from pg_class where oid = view;
    found_signature := goldlake_local.late_signature(kept.query);
    if found_signature is null or found_signature is not distinct from kept.signature then return; end if;
    name := format('%s.%I', relation.relnamespace::regnamespace, relation.relname);
    begin
        execute format('drop view %s', name);
    exception when dependent_objects_still_exist then return;
    end;
    perform goldlake_local.make_late_view(name, kept.columns, kept.query, found_signature);
    execute format('alter function %s() owner to %I',
                   (select function_name from goldlake_local.late_view where view_oid = name::regclass),
                   pg_get_userbyid(relation.relowner));
    execute format('alter view %s owner to %I', name, pg_get_userbyid(relation.relowner));
    if relation.relacl is not null then
        perform goldlake_local.restore_privileges(name::regclass, relation.relacl);
    end if;
end $$;

create or replace function goldlake_local.on_ddl() returns event_trigger language plpgsql security definer
as $$
declare
    view oid;
begin
    if current_setting('goldlake_local.binding', true) = 'on' then return; end if;
    if not exists (select from goldlake_local.late_view) then return; end if;
    perform set_config('goldlake_local.binding', 'on', true);
    for view in
        select l.view_oid from goldlake_local.late_view l
         where exists (select from pg_event_trigger_ddl_commands() d join pg_class c on c.oid = d.objid
                        where d.classid = 'pg_class'::regclass and c.oid <> l.view_oid
                          and strpos(lower(l.query), lower(c.relname)) > 0)
    loop
        perform goldlake_local.bind_again(view);
    end loop;
    perform set_config('goldlake_local.binding', 'off', true);
end $$;

create or replace function goldlake_local.on_drop() returns event_trigger language plpgsql security definer
as $$
declare
    unused text;
begin
    for unused in
        delete from goldlake_local.late_view l using pg_event_trigger_dropped_objects() d
         where d.classid = 'pg_class'::regclass and d.objid = l.view_oid and d.objsubid = 0
        returning l.function_name
    loop
        execute format('drop function if exists %s()', unused);
    end loop;
end $$;

drop event trigger if exists goldlake_on_ddl;
create event trigger goldlake_on_ddl on ddl_command_end
    when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE VIEW', 'ALTER VIEW',
                 'CREATE MATERIALIZED VIEW')
    execute function goldlake_local.on_ddl();
drop event trigger if exists goldlake_on_drop;
create event trigger goldlake_on_drop on sql_drop execute function goldlake_local.on_drop();

-- The caller names the columns, and PostgreSQL casts to the types that he names.
drop function if exists pg_catalog.pg_get_late_binding_view_cols();
create function pg_catalog.pg_get_late_binding_view_cols() returns setof record
language sql stable security definer
as $$
    select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)::varchar, a.attnum::integer
      from goldlake_local.late_view l
      join pg_class c on c.oid = l.view_oid
      join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
     where l.signature is not null
$$;

-- Whether information_schema.columns leaves a table out: an external one, or a late-binding view.
create or replace function goldlake_local.is_hidden(schema_name name, table_name name) returns boolean
language sql stable
as $$
    select exists (select 1 from goldlake_local.external_schema e where e.schema_name = $1)
        or exists (select 1 from goldlake_local.late_view l join pg_catalog.pg_class c on c.oid = l.view_oid
                     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                    where c.relname = $2 and n.nspname = $1)
$$;

-- What Redshift has in pg_class and pg_attribute besides: PostgreSQL reads `c.reldiststyle` as a call.
create or replace function pg_catalog.reldiststyle(pg_class) returns smallint language sql immutable parallel safe
as $$ select 9::smallint $$;
create or replace function pg_catalog.attisdistkey(pg_attribute) returns boolean language sql immutable parallel safe
as $$ select false $$;
create or replace function pg_catalog.attsortkeyord(pg_attribute) returns integer language sql immutable parallel safe
as $$ select 0 $$;
create or replace function pg_catalog.attencodingtype(pg_attribute) returns smallint
language sql immutable parallel safe
as $$ select 0::smallint $$;
create or replace function pg_catalog.format_encoding(integer) returns varchar language sql immutable parallel safe
as $$ select 'none'::varchar $$;

-- The views of external tables are in spectrum/catalog.sql, in other words than they once had here.
do $$
begin
    if pg_get_viewdef(to_regclass('pg_catalog.svv_external_tables')) like '%MapredParquetInputFormat%' then
        drop view pg_catalog.svv_external_schemas, pg_catalog.svv_external_tables, pg_catalog.svv_external_columns;
    end if;
end $$;

-- Columns of late-binding views are in pg_get_late_binding_view_cols() only.
do $$
declare
    definition text := rtrim(pg_get_viewdef('information_schema.columns'::regclass), ';');
begin
    if definition not like '%is_hidden%' and definition not like '%external_schema%' then
        execute 'create or replace view information_schema.columns as select * from (' || definition || ') visible '
             || 'where not goldlake_local.is_hidden(table_schema, table_name)';
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

-- Views over all schemas. `goldlake_tables` is what the others are made of.
create or replace view pg_catalog.goldlake_tables as
select current_database()::varchar as database_name,
       n.nspname::varchar as schema_name,
       c.relname::varchar as table_name,
       case when e.schema_name is not null then 'EXTERNAL TABLE' when c.relkind in ('v', 'm') then 'VIEW'
            else 'TABLE' end::varchar as table_type,
       c.relacl::varchar as table_acl,
       pg_catalog.obj_description(c.oid, 'pg_class')::varchar as remarks,
       pg_catalog.pg_get_userbyid(c.relowner)::varchar as table_owner,
       case when e.schema_name is not null then 'EXTERNAL TABLE' when l.view_oid is not null then 'LATE BINDING VIEW'
            when c.relkind = 'm' then 'MATERIALIZED VIEW' when c.relkind = 'v' then 'REGULAR VIEW'
            else 'REGULAR TABLE' end::varchar as table_subtype,
       c.oid as table_oid
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join goldlake_local.external_schema e on e.schema_name = n.nspname
  left join goldlake_local.late_view l on l.view_oid = c.oid
 where c.relkind in ('r', 'v', 'm', 'p', 'f')
   and n.nspname not in ('goldlake_local', 'information_schema') and n.nspname not like 'pg\_%';

create or replace view pg_catalog.svv_all_tables as
select database_name, schema_name, table_name, table_acl, table_type, remarks from pg_catalog.goldlake_tables;

create or replace view pg_catalog.svv_redshift_tables as
select database_name, schema_name, table_name, table_type, table_acl, remarks, table_owner
  from pg_catalog.goldlake_tables where table_type <> 'EXTERNAL TABLE';

create or replace view pg_catalog.svv_tables as
select database_name as table_catalog, schema_name as table_schema, table_name,
       case table_type when 'TABLE' then 'BASE TABLE' else table_type end::varchar as table_type, remarks
  from pg_catalog.goldlake_tables;

create or replace view pg_catalog.svv_all_columns as
select t.database_name, t.schema_name, t.table_name,
       a.attname::varchar as column_name,
       a.attnum::integer as ordinal_position,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid)::varchar as column_default,
       case when a.attnotnull then 'NO' else 'YES' end::varchar as is_nullable,
       pg_catalog.format_type(a.atttypid, null)::varchar as data_type,
       information_schema._pg_char_max_length(a.atttypid, a.atttypmod)::integer as character_maximum_length,
       information_schema._pg_numeric_precision(a.atttypid, a.atttypmod)::integer as numeric_precision,
       information_schema._pg_numeric_scale(a.atttypid, a.atttypmod)::integer as numeric_scale,
       pg_catalog.col_description(a.attrelid, a.attnum)::varchar as remarks
  from pg_catalog.goldlake_tables t
  join pg_catalog.pg_attribute a on a.attrelid = t.table_oid and a.attnum > 0 and not a.attisdropped
  left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum;

create or replace view pg_catalog.svv_columns as
select database_name as table_catalog, schema_name as table_schema, table_name, column_name, ordinal_position,
       column_default, is_nullable, data_type, character_maximum_length, numeric_precision,
       null::integer as numeric_precision_radix, numeric_scale, null::integer as datetime_precision,
       null::varchar as interval_type, null::varchar as interval_precision,
       null::varchar as character_set_catalog, null::varchar as character_set_schema,
       null::varchar as character_set_name, null::varchar as collation_catalog, null::varchar as collation_schema,
       null::varchar as collation_name, null::varchar as domain_name, remarks
  from pg_catalog.svv_all_columns;

create or replace view pg_catalog.svv_redshift_databases as
select d.datname::varchar as database_name,
       d.datdba::integer as database_owner,
       'local'::varchar as database_type,
       d.datacl::varchar as database_acl,
       null::varchar as database_options,
       'Snapshot Isolation'::varchar as database_isolation_level
  from pg_catalog.pg_database d where not d.datistemplate and d.datname <> 'postgres';

create or replace view pg_catalog.svv_all_schemas as
select current_database()::varchar as database_name,
       n.nspname::varchar as schema_name,
       n.nspowner::integer as schema_owner,
       case when e.schema_name is null then 'local' else 'external' end::varchar as schema_type,
       n.nspacl::varchar as schema_acl,
       e.glue_database::varchar as source_database,
       null::varchar as schema_option
  from pg_catalog.pg_namespace n
  left join goldlake_local.external_schema e on e.schema_name = n.nspname
 where n.nspname <> 'goldlake_local' and n.nspname not like 'pg\_toast%' and n.nspname not like 'pg\_temp%';

create or replace view pg_catalog.svv_redshift_schemas as
select database_name, schema_name, schema_owner, schema_type, schema_acl, schema_option
  from pg_catalog.svv_all_schemas where schema_type = 'local';

create or replace view pg_catalog.svv_redshift_functions as
select current_database()::varchar as database_name,
       n.nspname::varchar as schema_name,
       p.proname::varchar as function_name,
       case p.prokind when 'p' then 'STORED PROCEDURE' else 'REGULAR FUNCTION' end::varchar as function_type,
       pg_catalog.pg_get_function_identity_arguments(p.oid)::varchar as argument_type,
       pg_catalog.pg_get_function_result(p.oid)::varchar as result_type
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
 where n.nspname not in ('pg_catalog', 'information_schema', 'goldlake_local')
   and p.proname not like 'goldlake\_late\_%';

-- Only schemas on the search path, as in Redshift.
create or replace view pg_catalog.pg_table_def as
select n.nspname as schemaname,
       c.relname as tablename,
       a.attname as "column",
       pg_catalog.format_type(a.atttypid, a.atttypmod) as type,
       'none'::varchar as encoding,
       false as distkey,
       0 as sortkey,
       a.attnotnull as "notnull"
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where c.relkind = 'r' and n.nspname = any (current_schemas(true)) and n.nspname not like 'pg\_toast%';

create or replace view pg_catalog.sys_query_history as
select usesysid::integer as user_id, pid::bigint as query_id, null::varchar as query_label,
       pid::bigint as transaction_id, pid as session_id, datname::varchar as database_name,
       'UNKNOWN'::varchar as query_type, 'running'::varchar as status, false as result_cache_hit,
       query_start as start_time, null::timestamptz as end_time,
       (extract(epoch from clock_timestamp() - query_start) * 1000000)::bigint as elapsed_time,
       0::bigint as queue_time,
       (extract(epoch from clock_timestamp() - query_start) * 1000000)::bigint as execution_time,
       null::varchar as error_message, 0::bigint as returned_rows, 0::bigint as returned_bytes,
       query::varchar as query_text, 'main'::varchar as compute_type
  from pg_catalog.pg_stat_activity where state = 'active' and backend_type = 'client backend';

create or replace view pg_catalog.stv_recents as
select user_id as userid, 'Running'::varchar as status, start_time as starttime, elapsed_time as duration,
       pg_catalog.pg_get_userbyid(user_id::oid)::varchar as user_name, database_name as db_name,
       query_text as query, session_id as pid
  from pg_catalog.sys_query_history;

create or replace view pg_catalog.stv_inflight as
select user_id as userid, 0 as slice, query_id as query, query_label as label, transaction_id as xid,
       session_id as pid, start_time as starttime, query_text as text, 0 as suspended, 0 as insert_pristine,
       0 as concurrency_scaling_status
  from pg_catalog.sys_query_history;

grant select on goldlake_local.late_view, pg_catalog.goldlake_tables, pg_catalog.svv_all_tables,
    pg_catalog.svv_redshift_tables, pg_catalog.svv_tables, pg_catalog.svv_all_columns, pg_catalog.svv_columns,
    pg_catalog.svv_redshift_databases, pg_catalog.svv_all_schemas, pg_catalog.svv_redshift_schemas,
    pg_catalog.svv_redshift_functions, pg_catalog.pg_table_def, pg_catalog.stv_recents, pg_catalog.stv_inflight,
    pg_catalog.sys_query_history to public;

grant select on pg_catalog.svv_redshift_columns, pg_catalog.svv_table_info, pg_catalog.svv_relation_privileges,
    pg_catalog.svv_mv_info, information_schema.columns to public;
commit;
