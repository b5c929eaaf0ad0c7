-- What surrounds punches, in one row of small lists. Times are whole milliseconds since 1970.
--   $1 employees   $2 devices   $3 sites   $4 the same sites as the ledger writes ids   $5 keys
--   $6 quarantined items   $7, $8 the punches' numbers: devices, and the numbers beside them   $9 notes
select
    (select json_agg(json_build_array(employee, name))
     from employee_directory
     where employee = any($1)) as employees,

    -- Whoever is erased has no entry in the directory: mostly nobody.
    (select json_agg(json_build_array(
         e.aggregate_id, e.position, e.event_type, e.event_version, e.payload::text))
     from unnest($1::uuid[]) as wanted(employee)
     join events e on e.aggregate_type = 'employee' and e.aggregate_id = wanted.employee::text
         and e.event_type = 'Erased'
     where not exists (select from employee_directory d where d.employee = wanted.employee))
         as erased,

    (select json_agg(json_build_array(
         d.device, n.name, floor(extract(epoch from r.reported_at) * 1000)::bigint, r.outbox,
         floor(extract(epoch from r.oldest) * 1000)::bigint, r.seq, coalesce(p.acked_through, 0),
         -- Whether anything was ever noted about its numbers: mostly not.
         exists (select from read.explanation_gaps g where g.device = d.device)
             or exists (select from read.explanation_marks m where m.device = d.device)))
     from unnest($2::uuid[]) as d(device)
     left join device_directory n on n.device = d.device
     left join device_reports r on r.device = d.device
     left join device_progress p on p.device = d.device) as devices,

    (select json_agg(json_build_array(site, name))
     from site_directory
     where site = any($3)) as sites,

    -- What named the site's zones.
    (select json_agg(json_build_array(
         aggregate_id, position, event_type, event_version, payload::text)
         order by position)
     from events
     where aggregate_type = 'site' and aggregate_id = any($4)
         and event_type in ('Registered', 'ZoneChanged')) as zones,

    (select json_agg(json_build_array(id, name))
     from (select id, name from operator_keys where id = any($5)
           union all select id, name from users where id = any($5) and name is not null) as operators)
         as keys,

    (select json_agg(json_build_array(
         aggregate_id, floor(extract(epoch from recorded_at) * 1000)::bigint,
         position, event_type, event_version, payload::text))
     from events
     where aggregate_type = 'quarantine' and aggregate_id = any($6) and sequence = 1) as quarantined,

    -- One that was erased has no text.
    (select json_agg(json_build_array(wanted.digest, n.body))
     from unnest($9::text[]) as wanted(digest)
     left join notes n on n.digest = decode(wanted.digest, 'hex')) as notes,

    -- A device's runs never overlap, so at most three touch a number and its two neighbours.
    (select json_agg(json_build_array(
         g.device, g.from_seq, g.to_seq,
         g.noticed, floor(extract(epoch from g.noticed_at) * 1000)::bigint,
         g.came, floor(extract(epoch from g.came_at) * 1000)::bigint))
     from (select distinct g.*
           from unnest($7::uuid[], $8::bigint[]) as wanted(device, seq)
           cross join lateral (select * from read.explanation_gaps g
                               where g.device = wanted.device and g.from_seq <= wanted.seq + 1
                               order by g.from_seq desc limit 3) g
           where g.to_seq >= wanted.seq - 1) g) as gaps,

    -- The first few say it; whoever forks a number a thousand times isn't told a thousand times.
    (select json_agg(json_build_array(
         m.device, m.seq, floor(extract(epoch from m.recorded_at) * 1000)::bigint,
         m.position, e.event_type, e.event_version, e.payload::text))
     from (select distinct m.*
           from unnest($7::uuid[], $8::bigint[]) as wanted(device, seq)
           cross join lateral (select * from read.explanation_marks m
                               where m.device = wanted.device and m.seq = wanted.seq
                               order by m.position limit 8) m) m
     join events e on e.position = m.position) as marks
