-- Days that dim_date lacks, or has too many of.
with spine as (

    {{ generate_date_spine(var('calendar_first'), var('calendar_last')) }}

)

select
    spine.date_day as expected,
    calendar.date_day as found
from spine
full outer join {{ ref('dim_date') }} as calendar on calendar.date_day = spine.date_day
where spine.date_day is null
    or calendar.date_day is null
