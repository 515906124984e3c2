# The image of a driver, an executor or a rank: Java 17, Python 3.11, every package of requirements.lock, Horovod, this
# project. By itself it runs the demo in local mode; with another command it is the Spark image of a cluster:
#
#   docker build -t sparkring .
#   docker run --rm -v "$PWD/lake:/app/lake" sparkring
#   docker run --rm sparkring spark-submit --master spark://... jobs/pipeline.py --recipe ... --platform ...
#   sparkring submit --to k8s --package sparkring ...     # driver and executors as Spark on Kubernetes starts them
#
# Where pip must be told where to look, give it at build time: --build-arg PIP_EXTRA_INDEX_URL=... (pip reads it).

ARG DEBIAN=debian:bookworm

FROM ${DEBIAN} AS build
ARG DEBIAN_FRONTEND=noninteractive PIP_EXTRA_INDEX_URL PIP_FIND_LINKS
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make python3.11-dev python3.11-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The packages change seldom: their layer comes before the project's.
COPY requirements.lock ./
RUN python3.11 -m venv /opt/sparkring \
    && /opt/sparkring/bin/python -m pip install --no-cache-dir --no-deps -r requirements.lock \
    && (/opt/sparkring/bin/python -c 'import torch' \
        || /opt/sparkring/bin/python -m pip install --no-cache-dir -c requirements.lock "$(grep '^torch==' requirements.lock)")
COPY setup/horovod.sh setup/build_horovod.sh setup/cxx17 setup/
RUN if ! wheel=$(setup/horovod.sh /opt/sparkring); then tail -n 50 /root/.cache/sparkring/*.log; exit 1; fi \
    && /opt/sparkring/bin/python -m pip install --no-cache-dir --no-deps "$wheel"
COPY pyproject.toml ./
COPY pipelines pipelines
RUN /opt/sparkring/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${DEBIAN}
ARG DEBIAN_FRONTEND=noninteractive
# procps and tini: Spark's scripts look for processes with ps; tini ends what a killed process leaves.
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless python3.11 procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 sparkring \
    && install -d -o sparkring -g sparkring /app /app/lake
COPY --from=build /opt/sparkring /opt/sparkring
ENV SPARK_HOME=/opt/sparkring/lib/python3.11/site-packages/pyspark \
    PYSPARK_PYTHON=/opt/sparkring/bin/python \
    PYTHONUNBUFFERED=1
ENV PATH=/opt/sparkring/bin:${SPARK_HOME}/bin:${SPARK_HOME}/sbin:${PATH}
WORKDIR /app
COPY --chown=sparkring jobs jobs
COPY --chown=sparkring conf conf
COPY setup/container.sh /usr/local/bin/container
USER sparkring
ENTRYPOINT ["tini", "-g", "--", "container"]
CMD ["python", "jobs/pipeline.py", "--recipe", "conf/recipes/gpt-demo.yaml", "--platform", "conf/platforms/local.yaml"]
