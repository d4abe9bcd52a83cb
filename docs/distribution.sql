-- How the tables of a platform are spread over machines by Citus. Generated; do not edit.
-- Run once on the coordinator, when the first start has made the tables and while no service runs:
--   psql -v ON_ERROR_STOP=1 -c 'SET search_path TO rxoutflow' -f docs/distribution.sql
-- and set store.distributed = true. Of a later release, run the statements that are new.

-- References go first: a table cannot be spread while another one refers to it.
ALTER TABLE prescription_lines DROP CONSTRAINT prescription_lines_prescription_number_fkey;
ALTER TABLE attempts DROP CONSTRAINT attempts_prescription_number_fkey;
ALTER TABLE pickup_tries DROP CONSTRAINT pickup_tries_prescription_number_fkey;
ALTER TABLE scheme_accumulators DROP CONSTRAINT scheme_accumulators_insured_person_id_fkey;
ALTER TABLE booked_returns DROP CONSTRAINT booked_returns_prescription_number_fkey;

-- by code
SELECT create_distributed_table('trace_codes', 'code', colocate_with => 'none');

-- by institution_code
SELECT create_distributed_table('notice_counters', 'institution_code', colocate_with => 'none');
SELECT create_distributed_table('notices', 'institution_code', colocate_with => 'notice_counters');
SELECT create_distributed_table('agreement_crossings', 'institution_code', colocate_with => 'notice_counters');

-- by insured_person_id
SELECT create_distributed_table('insured_persons', 'insured_person_id', colocate_with => 'none');
SELECT create_distributed_table('settlements', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('attempt_ends', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('credential_uses', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('prescription_index', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('scheme_accumulators', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('reversals', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('account_openings', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('account_entries', 'insured_person_id', colocate_with => 'insured_persons');
SELECT create_distributed_table('benefit_openings', 'insured_person_id', colocate_with => 'insured_persons');

-- by issuer_code
SELECT create_distributed_table('hospital_numbers', 'issuer_code', colocate_with => 'none');

-- by prescription_number
SELECT create_distributed_table('statements', 'prescription_number', colocate_with => 'none');
SELECT create_distributed_table('steps', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('outcomes', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('outbox', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('inbox', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('prescriptions', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('prescription_lines', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('attempts', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('pickup_tries', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('claims', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('dispenses', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('ledger_entries', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('deliveries', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('log_waiting', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('booked_returns', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('returns', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('prescription_numbers', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('open_boxes', 'prescription_number', colocate_with => 'statements');
SELECT create_distributed_table('agreement_uses', 'prescription_number', colocate_with => 'statements');

-- The references again; each is within one key.
ALTER TABLE prescription_lines ADD FOREIGN KEY (prescription_number) REFERENCES prescriptions;
ALTER TABLE attempts ADD FOREIGN KEY (prescription_number) REFERENCES prescriptions;
ALTER TABLE pickup_tries ADD FOREIGN KEY (prescription_number) REFERENCES prescriptions;
ALTER TABLE scheme_accumulators ADD FOREIGN KEY (insured_person_id) REFERENCES insured_persons;
ALTER TABLE booked_returns ADD FOREIGN KEY (prescription_number) REFERENCES prescriptions;

-- What there is one of stays where it is:
-- certificates: a row for each signer; a process asks for it once, and adds it once
-- clearings: a few rows a month; which one was accepted is unique for a peer and a period
-- log_checkpoints: there is one log, and its heads are in order
-- log_leaves: there is one log: a leaf's number is its key
-- log_seen: a row for each other region
-- log_signers: a row for each certificate of the platform
-- log_turn: one row: whose turn it is to let the log grow
-- task_turns: a row for each task: whose turn it is to do it
