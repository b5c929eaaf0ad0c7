-- Whose key it is, if a worker's who may rule: nobody rules on their own.

alter table operator_keys add column employee uuid;
