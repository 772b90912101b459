"""dlt reads the same list into the same PostgreSQL: its REST source, merged by the record's id.

Called with the vendor's address, the database's and a folder for its work; prints the seconds that the
pipeline took, without the start of Python.
"""

import json
import sys
import time

import dlt
from dlt.sources.rest_api import rest_api_source

vendor, database, folder = sys.argv[1:]
source = rest_api_source({
    "client": {
        "base_url": vendor,
        "paginator": {"type": "page_number", "base_page": 1, "page_param": "page", "total_path": "data.pages"},
    },
    "resources": [{
        "name": "sales",
        "primary_key": "sale_id",
        "write_disposition": "merge",
        "endpoint": {"path": "list", "data_selector": "data.items", "params": {"page_size": 500}},
    }],
})
# The lines of a bill stay JSON in a column, as they do here: tables of their own would cost it more.
source.max_table_nesting = 0
pipeline = dlt.pipeline(
    pipeline_name="pull", pipelines_dir=folder, dataset_name="pulled",
    destination=dlt.destinations.postgres(credentials=database))
began = time.perf_counter()
pipeline.run(source)
took = time.perf_counter() - began
print(json.dumps({"seconds": took}))
