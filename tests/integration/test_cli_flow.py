"""The command line against an edge: a handover step by step, refusals, and answers that were lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import zxingcpp
from click.testing import CliRunner, Result
from PIL import Image

from rxoutflow.cli import cli
from rxoutflow.cli.desk import Desk
from rxoutflow.cli.session import Session
from rxoutflow.v1 import pos_service_pb2 as pos
from rxoutflow.v1.attempt_pb2 import Attempt, Commitment
from rxoutflow.v1.dispense_pb2 import DispenseProgress, DispenseRecord
from rxoutflow.v1.prescription_status_pb2 import LineUse, PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import Quote
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_HOSPITAL_SEAL
from rxoutflow.statements import add_signature
from support.fake_edge import FakeEdge, Refusal, in_turn, texts
from support.pki import NOW
from integration.test_clients import AMOUNTS, DRAFT, SECRET, attempt, committed, complete, issue

LOST = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED)
