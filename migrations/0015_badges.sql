-- A badge is not a person: whose it is, and since when, stands in badge_holdings alone.

alter table employee_directory drop column badge;

-- Serves an import: badges that differ from one in the file by leading zeros only, as a spreadsheet loses them.
create index badge_holdings_without_zeros on badge_holdings (ltrim(number, '0'));
