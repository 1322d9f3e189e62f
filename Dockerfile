# The environment of requirements.lock and the checkout in it:
#   docker build -t sastc . && docker run --rm -v "$PWD/results:/sastc/results" sastc
# The book then lies in results/site/_build/html. The repository's history goes along: records name their commit.
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git g++ make chromium fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /sastc
COPY requirements.lock pyproject.toml Makefile README.md ./
COPY sastc/ sastc/
RUN make .venv/ready
COPY . .
CMD ["make", "book"]
