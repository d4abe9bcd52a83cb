"""The tables of the two kinds of store, as migrations that both engines apply.

State is keyed by its shard key first and stored in the order of that key; evidence is appended.
Times are microseconds since 1970, digests raw bytes, short lists JSON. The constraints repeat what
the domain promises: a defect above them breaks a transaction, never the records. A migration that
was released is never edited; a change is a new one. The words are SQLite's; the schema of another
engine replaces those that it does not have. How a migration is applied is the engine's own affair.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["platform", "edge"]

_JOURNAL = (
    """
    CREATE TABLE statements (
        prescription_number TEXT NOT NULL,
        sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
        payload_type TEXT NOT NULL,
        statement BLOB NOT NULL,
        keep_time INTEGER NOT NULL,
        PRIMARY KEY (prescription_number, sha256)
    ) STRICT
    """,
    """
    CREATE TABLE steps (
        prescription_number TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence >= 1),
        time INTEGER NOT NULL,
        role TEXT NOT NULL,
        flow TEXT NOT NULL,
        action TEXT NOT NULL,
        actor_code TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL,
        PRIMARY KEY (prescription_number, sequence)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE outcomes (
        prescription_number TEXT NOT NULL,
        caller TEXT NOT NULL,
        request_id TEXT NOT NULL,
        method TEXT NOT NULL,
        request_sha256 BLOB NOT NULL,
        response_type TEXT NOT NULL,
        response BLOB NOT NULL,
        effect_time INTEGER NOT NULL,
        PRIMARY KEY (prescription_number, caller, request_id)
    ) STRICT
    """,
    """
    CREATE TABLE outbox (
        prescription_number TEXT NOT NULL,
        peer_region_code TEXT NOT NULL,
        event_id TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence >= 1),
        insured_person_id TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL,
        create_time INTEGER NOT NULL,
        next_try_time INTEGER NOT NULL,
        tries INTEGER NOT NULL CHECK (tries >= 0),
        state TEXT NOT NULL CHECK (state IN ('pending', 'dead')),
        error TEXT NOT NULL,
        PRIMARY KEY (prescription_number, peer_region_code, event_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX outbox_pending ON outbox
        (peer_region_code, next_try_time, create_time, prescription_number, sequence)
        WHERE state = 'pending'
    """,
    """
    CREATE TABLE inbox (
        prescription_number TEXT NOT NULL,
        origin TEXT NOT NULL,
        event_id TEXT NOT NULL,
        receive_time INTEGER NOT NULL,
        PRIMARY KEY (prescription_number, origin, event_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE notice_counters (
        institution_code TEXT NOT NULL PRIMARY KEY,
        sequence INTEGER NOT NULL CHECK (sequence >= 1)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE notices (
        institution_code TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence >= 1),
        kind TEXT NOT NULL,
        prescription_number TEXT NOT NULL,
        other_institution_code TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL,
        summary TEXT NOT NULL,
        time INTEGER NOT NULL,
        PRIMARY KEY (institution_code, sequence)
    ) STRICT, WITHOUT ROWID
    """,
)
_HOME = (
    """
    CREATE TABLE prescriptions (
        prescription_number TEXT NOT NULL PRIMARY KEY,
        issuer_code TEXT NOT NULL,
        hospital_prescription_number TEXT NOT NULL,
        payer_region_code TEXT NOT NULL,
        insured_person_id TEXT NOT NULL,
        issue_time INTEGER NOT NULL,
        expire_time INTEGER NOT NULL,
        register_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        statement_sha256 BLOB NOT NULL,
        pickup_hash BLOB NOT NULL,
        validity TEXT NOT NULL
            CHECK (validity IN ('active', 'expired', 'revoked', 'marked_for_revocation')),
        pharmacy_reviewed INTEGER NOT NULL CHECK (pharmacy_reviewed IN (0, 1)),
        fence INTEGER NOT NULL CHECK (fence >= 0),
        version INTEGER NOT NULL CHECK (version >= 1)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX prescriptions_of_issuer ON prescriptions (issuer_code, prescription_number)",
    """
    CREATE TABLE hospital_numbers (
        issuer_code TEXT NOT NULL,
        hospital_prescription_number TEXT NOT NULL,
        prescription_number TEXT NOT NULL,
        PRIMARY KEY (issuer_code, hospital_prescription_number)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE prescription_lines (
        prescription_number TEXT NOT NULL REFERENCES prescriptions,
        line_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        authorised INTEGER NOT NULL CHECK (authorised >= 0),
        claimed INTEGER NOT NULL CHECK (claimed >= 0),
        committed INTEGER NOT NULL CHECK (committed >= 0),
        dispensed INTEGER NOT NULL CHECK (dispensed >= 0),
        returned INTEGER NOT NULL CHECK (returned >= 0),
        PRIMARY KEY (prescription_number, line_id),
        CHECK (claimed + committed + dispensed - returned <= authorised)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE attempts (
        prescription_number TEXT NOT NULL REFERENCES prescriptions,
        attempt_id TEXT NOT NULL,
        fence INTEGER NOT NULL CHECK (fence >= 1),
        state TEXT NOT NULL
            CHECK (state IN ('reserved', 'committed', 'dispensed', 'released', 'expired')),
        pharmacy_code TEXT NOT NULL,
        dispensing_region_code TEXT NOT NULL,
        lines TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        lease_expire_time INTEGER,
        update_time INTEGER NOT NULL,
        settlement_id TEXT NOT NULL,
        cause_sha256 BLOB NOT NULL,
        PRIMARY KEY (prescription_number, attempt_id),
        UNIQUE (prescription_number, fence),
        CHECK ((state = 'reserved') = (lease_expire_time IS NOT NULL))
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE UNIQUE INDEX attempts_one_live ON attempts (prescription_number)
        WHERE state IN ('reserved', 'committed')
    """,
    """
    CREATE TABLE pickup_tries (
        prescription_number TEXT NOT NULL PRIMARY KEY REFERENCES prescriptions,
        wrong INTEGER NOT NULL CHECK (wrong >= 0),
        locked_until INTEGER
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX attempts_by_lease ON attempts (lease_expire_time) WHERE state = 'reserved'
    """,
)
_PAYER = (
    """
    CREATE TABLE insured_persons (
        insured_person_id TEXT NOT NULL PRIMARY KEY,
        person_type TEXT NOT NULL,
        area_status TEXT NOT NULL,
        own_account_fen INTEGER NOT NULL CHECK (own_account_fen >= 0),
        family_accounts_fen TEXT NOT NULL CHECK (family_accounts_fen NOT LIKE '%-%'),
        year INTEGER NOT NULL,
        used_deductible_fen INTEGER NOT NULL CHECK (used_deductible_fen >= 0),
        used_cap_fen INTEGER NOT NULL CHECK (used_cap_fen >= 0),
        direct_settlement_suspended INTEGER NOT NULL
            CHECK (direct_settlement_suspended IN (0, 1))
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE settlements (
        insured_person_id TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        prescription_number TEXT NOT NULL,
        dispensing_region_code TEXT NOT NULL,
        pharmacy_code TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('held', 'posted', 'voided', 'reversed')),
        family_accounts_fen TEXT NOT NULL CHECK (family_accounts_fen NOT LIKE '%-%'),
        tariff_version TEXT NOT NULL,
        year INTEGER NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        cause_sha256 BLOB NOT NULL,
        record_sha256 BLOB NOT NULL,
        booked_sha256 BLOB NOT NULL,
        total_fen INTEGER NOT NULL,
        own_fen INTEGER NOT NULL CHECK (own_fen >= 0),
        excess_fen INTEGER NOT NULL CHECK (excess_fen >= 0),
        first_self_pay_fen INTEGER NOT NULL CHECK (first_self_pay_fen >= 0),
        inscope_fen INTEGER NOT NULL,
        deductible_fen INTEGER NOT NULL CHECK (deductible_fen >= 0),
        pool_fen INTEGER NOT NULL CHECK (pool_fen >= 0),
        ratio_self_fen INTEGER NOT NULL CHECK (ratio_self_fen >= 0),
        person_fen INTEGER NOT NULL,
        account_fen INTEGER NOT NULL CHECK (account_fen >= 0),
        family_fen INTEGER NOT NULL CHECK (family_fen >= 0),
        cash_fen INTEGER NOT NULL CHECK (cash_fen >= 0),
        PRIMARY KEY (insured_person_id, settlement_id),
        CHECK (total_fen = own_fen + excess_fen + first_self_pay_fen + inscope_fen),
        CHECK (inscope_fen = deductible_fen + pool_fen + ratio_self_fen),
        CHECK (total_fen = pool_fen + person_fen),
        CHECK (person_fen = account_fen + family_fen + cash_fen)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX settlements_of_attempt ON settlements (insured_person_id, attempt_id)",
    """
    CREATE TABLE attempt_ends (
        insured_person_id TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (insured_person_id, attempt_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE credential_uses (
        insured_person_id TEXT NOT NULL,
        code_sha256 BLOB NOT NULL CHECK (length(code_sha256) = 32),
        pharmacy_code TEXT NOT NULL,
        PRIMARY KEY (insured_person_id, code_sha256)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE prescription_index (
        insured_person_id TEXT NOT NULL,
        prescription_number TEXT NOT NULL,
        version INTEGER NOT NULL,
        status_sha256 BLOB NOT NULL,
        PRIMARY KEY (insured_person_id, prescription_number)
    ) STRICT, WITHOUT ROWID
    """,
)
_DISPENSING = (
    """
    CREATE TABLE claims (
        prescription_number TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        pharmacy_code TEXT NOT NULL,
        prescription_sha256 BLOB NOT NULL,
        attempt_sha256 BLOB NOT NULL,
        update_time INTEGER NOT NULL,
        PRIMARY KEY (prescription_number, attempt_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE dispenses (
        prescription_number TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        fence INTEGER NOT NULL CHECK (fence >= 1),
        pharmacy_code TEXT NOT NULL,
        payer_region_code TEXT NOT NULL,
        insured_person_id TEXT NOT NULL,
        insured INTEGER NOT NULL CHECK (insured IN (0, 1)),
        lines TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('committing', 'held', 'committed', 'refused',
                                             'dispensed', 'completed', 'released')),
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        commitment_sha256 BLOB NOT NULL,
        pricing_sha256 BLOB NOT NULL,
        settlement_sha256 BLOB NOT NULL,
        record_sha256 BLOB NOT NULL,
        booked INTEGER NOT NULL CHECK (booked IN (0, 1)),
        posted INTEGER NOT NULL CHECK (posted IN (0, 1)),
        PRIMARY KEY (prescription_number, settlement_id),
        CHECK (state <> 'completed' OR (booked = 1 AND posted = 1))
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX dispenses_of_attempt ON dispenses (prescription_number, attempt_id)",
    "CREATE INDEX dispenses_of_pharmacy ON dispenses (pharmacy_code, settlement_id)",
    """
    CREATE INDEX dispenses_undecided ON dispenses (update_time, settlement_id)
        WHERE state IN ('committing', 'held')
    """,
    """
    CREATE TABLE trace_codes (
        code TEXT NOT NULL PRIMARY KEY,
        loose INTEGER NOT NULL CHECK (loose IN (0, 1)),
        prescription_number TEXT NOT NULL,
        attempt_id TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)
_CLEARING = (
    """
    CREATE TABLE ledger_entries (
        prescription_number TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        book TEXT NOT NULL CHECK (book IN ('payable', 'receivable', 'sales')),
        movement TEXT NOT NULL CHECK (movement IN ('posting', 'reversal')),
        reversal_id TEXT NOT NULL,
        counterpart_code TEXT NOT NULL,
        pharmacy_code TEXT NOT NULL,
        mode TEXT NOT NULL CHECK (mode IN ('insurance', 'self_pay')),
        day TEXT NOT NULL,
        posted_day TEXT NOT NULL,
        total_fen INTEGER NOT NULL,
        pool_fen INTEGER NOT NULL CHECK (pool_fen >= 0),
        account_fen INTEGER NOT NULL CHECK (account_fen >= 0),
        family_fen INTEGER NOT NULL CHECK (family_fen >= 0),
        cash_fen INTEGER NOT NULL CHECK (cash_fen >= 0),
        PRIMARY KEY (prescription_number, settlement_id, book, movement, reversal_id),
        CHECK (total_fen = pool_fen + account_fen + family_fen + cash_fen),
        CHECK (posted_day <= day AND (movement = 'reversal' OR posted_day = day))
    ) STRICT
    """,
    """
    CREATE INDEX ledger_by_day ON ledger_entries
        (book, counterpart_code, day, settlement_id, movement, reversal_id)
    """,
    """
    CREATE TABLE clearings (
        peer_region_code TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('payer', 'dispensing')),
        period TEXT NOT NULL,
        revision INTEGER NOT NULL CHECK (revision >= 1),
        statement BLOB NOT NULL,
        acceptance BLOB,
        time INTEGER NOT NULL,
        PRIMARY KEY (peer_region_code, role, period, revision)
    ) STRICT
    """,
    """
    CREATE UNIQUE INDEX clearings_accepted_once ON clearings (peer_region_code, role, period)
        WHERE acceptance IS NOT NULL
    """,
    "CREATE INDEX clearings_by_period ON clearings (period, role, peer_region_code, revision)",
)
_SIGNED_OUTSIDE = ", ".join(
    f"'application/vnd.rxoutflow.{name}.v1+protobuf'"
    for name in ("prescription", "dispense-record", "dispense-return")
)
_SUPERVISION = (
    f"""
    CREATE INDEX statements_by_time ON statements (payload_type, keep_time)
        WHERE payload_type IN ({_SIGNED_OUTSIDE})
    """,
)
_DEAD_LETTERS = (
    "ALTER TABLE outbox ADD COLUMN pending_since INTEGER NOT NULL DEFAULT 0",
    "UPDATE outbox SET pending_since = create_time",
    "CREATE INDEX outbox_dead ON outbox (event_id) WHERE state = 'dead'",
)
_ADJUDICATION = (
    """
    CREATE INDEX attempts_by_commit ON attempts (update_time, prescription_number)
        WHERE state = 'committed'
    """,
)
_SCHEMES = (
    """
    CREATE TABLE scheme_accumulators (
        insured_person_id TEXT NOT NULL REFERENCES insured_persons,
        year INTEGER NOT NULL,
        scheme_code TEXT NOT NULL,
        used_deductible_fen INTEGER NOT NULL CHECK (used_deductible_fen >= 0),
        used_cap_fen INTEGER NOT NULL CHECK (used_cap_fen >= 0),
        PRIMARY KEY (insured_person_id, year, scheme_code)
    ) STRICT, WITHOUT ROWID
    """,
    "ALTER TABLE settlements ADD COLUMN schemes TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE settlements ADD COLUMN pricing_sha256 BLOB NOT NULL DEFAULT x''",
    # The cause of a hold is its pricing; what was posted before keeps no reference to it.
    "UPDATE settlements SET pricing_sha256 = cause_sha256 WHERE state = 'held'",
    """
    CREATE INDEX settlements_of_year ON settlements
        (year, insured_person_id, create_time, settlement_id)
    """,
)
# One log for the region: but for the leaves that wait, its tables have no key to shard by. Stores
# that are older than the log get their statements into it with the first commit.
_LOG = (
    """
    CREATE TABLE log_waiting (
        prescription_number TEXT NOT NULL,
        position INTEGER NOT NULL CHECK (position >= 1),
        statement_sha256 BLOB NOT NULL CHECK (length(statement_sha256) = 32),
        payload_type TEXT NOT NULL,
        keep_time INTEGER NOT NULL,
        PRIMARY KEY (prescription_number, position)
    ) STRICT, WITHOUT ROWID
    """,
    """
    INSERT INTO log_waiting
    SELECT prescription_number,
           ROW_NUMBER() OVER (PARTITION BY prescription_number ORDER BY keep_time, sha256),
           sha256, payload_type, keep_time
    FROM statements
    """,
    """
    CREATE TABLE log_leaves (
        leaf_index INTEGER PRIMARY KEY CHECK (leaf_index >= 0),
        prescription_number TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL CHECK (length(statement_sha256) = 32),
        payload_type TEXT NOT NULL,
        keep_time INTEGER NOT NULL,
        hashes BLOB NOT NULL CHECK (length(hashes) >= 32 AND length(hashes) % 32 = 0),
        UNIQUE (prescription_number, statement_sha256)
    ) STRICT
    """,
    "CREATE TABLE log_turn (code TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID",
    "INSERT INTO log_turn (code) VALUES ('tree')",
    """
    CREATE TABLE log_signers (
        certificate_sha256 BLOB NOT NULL PRIMARY KEY,
        certificate_chain BLOB NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE log_checkpoints (
        size INTEGER NOT NULL CHECK (size >= 1),
        root BLOB NOT NULL CHECK (length(root) = 32),
        time INTEGER NOT NULL,
        note TEXT NOT NULL,
        certificate_sha256 BLOB NOT NULL REFERENCES log_signers,
        PRIMARY KEY (size, time)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE log_seen (
        region_code TEXT NOT NULL,
        contradicts INTEGER NOT NULL CHECK (contradicts IN (0, 1)),
        size INTEGER NOT NULL CHECK (size >= 1),
        root BLOB NOT NULL CHECK (length(root) = 32),
        time INTEGER NOT NULL,
        note TEXT NOT NULL,
        certificate_chain BLOB NOT NULL,
        PRIMARY KEY (region_code, contradicts, size, root)
    ) STRICT, WITHOUT ROWID
    """,
)
_AMOUNTS = (
    "total_fen",
    "own_fen",
    "excess_fen",
    "first_self_pay_fen",
    "inscope_fen",
    "deductible_fen",
    "pool_fen",
    "ratio_self_fen",
    "person_fen",
    "account_fen",
    "family_fen",
    "cash_fen",
)
_RETURNS = (
    """
    CREATE TABLE booked_returns (
        prescription_number TEXT NOT NULL REFERENCES prescriptions,
        reversal_id TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        lines TEXT NOT NULL,
        re_entitled INTEGER NOT NULL CHECK (re_entitled IN (0, 1)),
        statement_sha256 BLOB NOT NULL,
        time INTEGER NOT NULL,
        PRIMARY KEY (prescription_number, reversal_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE returns (
        prescription_number TEXT NOT NULL,
        reversal_id TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        lines TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        booked INTEGER NOT NULL CHECK (booked IN (0, 1)),
        amounts TEXT,
        PRIMARY KEY (prescription_number, reversal_id)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX returns_of_settlement ON returns (prescription_number, settlement_id)",
    """
    CREATE TABLE reversals (
        insured_person_id TEXT NOT NULL,
        reversal_id TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        lines TEXT NOT NULL,
        amounts TEXT NOT NULL,
        cause_sha256 BLOB NOT NULL,
        time INTEGER NOT NULL,
        PRIMARY KEY (insured_person_id, settlement_id, reversal_id)
    ) STRICT, WITHOUT ROWID
    """,
    "ALTER TABLE settlements ADD COLUMN lines TEXT NOT NULL DEFAULT '[]'",
    *(
        f"ALTER TABLE settlements ADD COLUMN reversed_{name} INTEGER NOT NULL DEFAULT 0"
        f" CHECK (reversed_{name} BETWEEN 0 AND {name})"
        for name in _AMOUNTS
    ),
)
_FILLS = (
    """
    ALTER TABLE prescriptions ADD COLUMN fill_count INTEGER NOT NULL DEFAULT 1
        CHECK (fill_count >= 1)
    """,
    """
    ALTER TABLE prescriptions ADD COLUMN fill_interval_days INTEGER NOT NULL DEFAULT 0
        CHECK (fill_interval_days >= 0)
    """,
    """
    ALTER TABLE prescriptions ADD COLUMN dose_count INTEGER NOT NULL DEFAULT 0
        CHECK (dose_count >= 0)
    """,
    """
    ALTER TABLE prescriptions ADD COLUMN opened_fills INTEGER NOT NULL DEFAULT 1
        CHECK (opened_fills BETWEEN 1 AND fill_count)
    """,
    "ALTER TABLE prescriptions ADD COLUMN fill_begin_day TEXT",
    """
    CREATE TABLE prescription_numbers (
        prescription_number TEXT NOT NULL PRIMARY KEY,
        issuer_code TEXT NOT NULL,
        revocation_sha256 BLOB CHECK (length(revocation_sha256) = 32),
        time INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    INSERT INTO prescription_numbers (prescription_number, issuer_code, time)
        SELECT prescription_number, issuer_code, register_time FROM prescriptions
    """,
)
_EDGE_RETURNS = (
    """
    CREATE TABLE goods_returns (
        prescription_number TEXT NOT NULL,
        reversal_id TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        request_id TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL,
        delivered INTEGER NOT NULL CHECK (delivered IN (0, 1)),
        create_time INTEGER NOT NULL,
        refusal TEXT NOT NULL,
        PRIMARY KEY (prescription_number, reversal_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX goods_returns_undelivered ON goods_returns
        (create_time, prescription_number, reversal_id)
        WHERE delivered = 0 AND refusal = ''
    """,
)
_DELIVERIES = (
    """
    CREATE TABLE deliveries (
        prescription_number TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 3),
        state_time INTEGER NOT NULL,
        carrier TEXT NOT NULL,
        parcel_number TEXT NOT NULL,
        fee_fen INTEGER NOT NULL CHECK (fee_fen >= 0),
        statement_sha256 BLOB NOT NULL,
        PRIMARY KEY (prescription_number, settlement_id)
    ) STRICT, WITHOUT ROWID
    """,
)
_TRACE_CODES = (
    "ALTER TABLE trace_codes ADD COLUMN pharmacy_code TEXT NOT NULL DEFAULT ''",
    """
    UPDATE trace_codes SET pharmacy_code = COALESCE(
        (SELECT MAX(pharmacy_code) FROM dispenses
         WHERE dispenses.prescription_number = trace_codes.prescription_number
           AND dispenses.attempt_id = trace_codes.attempt_id), '')
    """,
    """
    CREATE TABLE open_boxes (
        prescription_number TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        code TEXT NOT NULL,
        unwanted INTEGER NOT NULL CHECK (unwanted IN (0, 1)),
        update_time INTEGER NOT NULL,
        PRIMARY KEY (prescription_number, attempt_id, code)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX open_boxes_by_time ON open_boxes
        (update_time, prescription_number, attempt_id, code)
    """,
)
_ACCOUNTS = (
    """
    CREATE TABLE account_openings (
        insured_person_id TEXT NOT NULL PRIMARY KEY,
        own_account_fen INTEGER NOT NULL CHECK (own_account_fen >= 0),
        family_accounts_fen TEXT NOT NULL CHECK (family_accounts_fen NOT LIKE '%-%'),
        held_fen INTEGER NOT NULL CHECK (held_fen >= 0),
        payable_fen INTEGER NOT NULL CHECK (payable_fen >= 0),
        pool_fen INTEGER NOT NULL CHECK (pool_fen >= 0)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE account_entries (
        insured_person_id TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        movement TEXT NOT NULL CHECK (movement IN ('hold', 'post', 'reversal', 'void')),
        reversal_id TEXT NOT NULL,
        debit_account TEXT NOT NULL,
        credit_account TEXT NOT NULL,
        fen INTEGER NOT NULL CHECK (fen > 0),
        time INTEGER NOT NULL,
        PRIMARY KEY (insured_person_id, settlement_id, movement, reversal_id,
                     debit_account, credit_account),
        CHECK (debit_account <> credit_account),
        CHECK ((movement = 'reversal') = (reversal_id <> ''))
    ) STRICT, WITHOUT ROWID
    """,
    # Whoever is there already begins with what is there: present balances, and what is under way.
    """
    INSERT INTO account_openings (
        insured_person_id, own_account_fen, family_accounts_fen, held_fen, payable_fen, pool_fen)
        SELECT insured_person_id, own_account_fen, family_accounts_fen,
            COALESCE((SELECT SUM(account_fen + family_fen + pool_fen) FROM settlements
                WHERE settlements.insured_person_id = insured_persons.insured_person_id
                  AND state = 'held'), 0),
            COALESCE((SELECT SUM(account_fen + family_fen + pool_fen
                    - reversed_account_fen - reversed_family_fen - reversed_pool_fen)
                FROM settlements
                WHERE settlements.insured_person_id = insured_persons.insured_person_id
                  AND state IN ('posted', 'reversed')), 0),
            COALESCE((SELECT SUM(pool_fen - reversed_pool_fen) FROM settlements
                WHERE settlements.insured_person_id = insured_persons.insured_person_id
                  AND state <> 'voided'), 0)
        FROM insured_persons
    """,
)
_AGREEMENTS = (
    """
    CREATE TABLE agreement_uses (
        prescription_number TEXT NOT NULL,
        settlement_id TEXT NOT NULL,
        reversal_id TEXT NOT NULL,
        institution_code TEXT NOT NULL,
        day TEXT NOT NULL,
        fen INTEGER NOT NULL,
        statement_sha256 BLOB NOT NULL CHECK (length(statement_sha256) = 32),
        PRIMARY KEY (prescription_number, settlement_id, reversal_id, institution_code),
        CHECK (CASE WHEN reversal_id = '' THEN fen >= 0 ELSE fen <= 0 END)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX agreement_uses_by_day ON agreement_uses
        (institution_code, day, prescription_number, settlement_id, reversal_id, fen)
    """,
    """
    CREATE TABLE agreement_crossings (
        institution_code TEXT NOT NULL,
        document TEXT NOT NULL,
        begin_day TEXT NOT NULL,
        above INTEGER NOT NULL CHECK (above IN (0, 1)),
        PRIMARY KEY (institution_code, document, begin_day)
    ) STRICT, WITHOUT ROWID
    """,
)
# What accumulators stood at before anything that can be replayed: of somebody new, at the
# beginning; of whoever is there already, at this migration.
_BENEFIT_OPENINGS = (
    """
    CREATE TABLE benefit_openings (
        insured_person_id TEXT NOT NULL,
        scheme_code TEXT NOT NULL,
        year INTEGER NOT NULL,
        used_deductible_fen INTEGER NOT NULL CHECK (used_deductible_fen >= 0),
        used_cap_fen INTEGER NOT NULL CHECK (used_cap_fen >= 0),
        since INTEGER NOT NULL,
        PRIMARY KEY (insured_person_id, scheme_code)
    ) STRICT, WITHOUT ROWID
    """,
    """
    INSERT INTO benefit_openings (insured_person_id, scheme_code, year, used_deductible_fen,
                                  used_cap_fen, since)
        SELECT insured_person_id, '', year, used_deductible_fen, used_cap_fen,
            COALESCE((SELECT MAX(keep_time) FROM statements), 0)
        FROM insured_persons
    """,
    """
    INSERT INTO benefit_openings (insured_person_id, scheme_code, year, used_deductible_fen,
                                  used_cap_fen, since)
        SELECT schemes.insured_person_id, schemes.scheme_code, schemes.year,
            schemes.used_deductible_fen, schemes.used_cap_fen,
            COALESCE((SELECT MAX(keep_time) FROM statements), 0)
        FROM scheme_accumulators AS schemes
        JOIN insured_persons AS person ON person.insured_person_id = schemes.insured_person_id
            AND person.year = schemes.year
    """,
)
_TURNS = (
    """
    CREATE TABLE task_turns (
        code TEXT NOT NULL PRIMARY KEY,
        holder TEXT NOT NULL,
        until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)
# What was kept before stays as it was: whole, with its certificates.
_CERTIFICATES = (
    """
    CREATE TABLE certificates (
        sha256 BLOB NOT NULL PRIMARY KEY CHECK (length(sha256) = 32),
        certificate BLOB NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)
_HOLDS = (
    """
    CREATE INDEX settlements_held ON settlements (create_time, settlement_id)
        WHERE state = 'held'
    """,
)
_EDGE = (
    """
    CREATE TABLE issued_prescriptions (
        prescription_number TEXT NOT NULL PRIMARY KEY,
        request_id TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL,
        pickup_secret TEXT NOT NULL,
        registration TEXT NOT NULL
            CHECK (registration IN ('queued', 'registered', 'refused', 'withdrawn')),
        create_time INTEGER NOT NULL,
        status_sha256 BLOB NOT NULL,
        status_time INTEGER,
        sent INTEGER NOT NULL CHECK (sent IN (0, 1)),
        refusal TEXT NOT NULL,
        revocation_request_id TEXT NOT NULL,
        CHECK (registration <> 'withdrawn' OR sent = 0)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX issued_queued ON issued_prescriptions (create_time, prescription_number)
        WHERE registration = 'queued'
    """,
    """
    CREATE TABLE handovers (
        prescription_number TEXT NOT NULL,
        attempt_id TEXT NOT NULL,
        request_id TEXT NOT NULL,
        statement_sha256 BLOB NOT NULL,
        delivered INTEGER NOT NULL CHECK (delivered IN (0, 1)),
        create_time INTEGER NOT NULL,
        refusal TEXT NOT NULL,
        PRIMARY KEY (prescription_number, attempt_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX handovers_undelivered ON handovers (create_time, prescription_number, attempt_id)
        WHERE delivered = 0 AND refusal = ''
    """,
    """
    CREATE TABLE resume_tokens (
        stream TEXT NOT NULL PRIMARY KEY,
        token TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)


MIGRATIONS: dict[Kind, dict[str, tuple[str, ...]]] = {
    "platform": {
        "0001_journal": _JOURNAL,
        "0002_home": _HOME,
        "0003_payer": _PAYER,
        "0004_dispensing": _DISPENSING,
        "0005_clearing": _CLEARING,
        "0006_supervision": _SUPERVISION,
        "0020_deliveries": _DELIVERIES,
        "0007_dead_letters": _DEAD_LETTERS,
        "0008_adjudication": _ADJUDICATION,
        "0009_schemes": _SCHEMES,
        "0010_log": _LOG,
        "0011_returns": _RETURNS,
        "0012_fills": _FILLS,
        "0013_trace_codes": _TRACE_CODES,
        "0021_accounts": _ACCOUNTS,
        "0022_agreements": _AGREEMENTS,
        "0023_benefit_openings": _BENEFIT_OPENINGS,
        "0024_turns": _TURNS,
        "0025_certificates": _CERTIFICATES,
        "0026_holds": _HOLDS,
    },
    "edge": {
        "0001_journal": _JOURNAL,
        "0002_edge": _EDGE,
        "0003_dead_letters": _DEAD_LETTERS,
        "0004_returns": _EDGE_RETURNS,
        "0005_certificates": _CERTIFICATES,
    },
}
