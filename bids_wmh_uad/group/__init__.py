"""The group level: tables, evaluation and page of a cohort."""
