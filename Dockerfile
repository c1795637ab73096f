# A witness in a container:
#
#   docker build -t tlog-witness .
#   docker run --rm -v witness:/var/lib/witness tlog-witness init --name witness.example.com/w1 --logs public
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -v witness:/var/lib/witness -p 7380:7380 tlog-witness
#
# The volume is the witness's identity and memory: two containers never share a copy of it, and a lost one is
# not replaced by an empty one. Nothing else is written: the root file system can be read-only.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/witness
COPY pyproject.toml README.md ./
COPY config config
COPY witness witness
COPY feeders feeders
COPY distributor distributor
RUN /opt/witness/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.13-slim
# A fixed number, so that a volume keeps its owner from image to image.
RUN groupadd --system --gid 7380 witness \
 && useradd --system --uid 7380 --gid 7380 --no-create-home --shell /usr/sbin/nologin witness \
 && install -d -m 0700 -o witness -g witness /var/lib/witness
COPY --from=build /opt/witness /opt/witness
# No compiled files are written at run time: the root file system may be read-only.
ENV PATH=/opt/witness/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    WITNESS_STATE=/var/lib/witness
USER witness
VOLUME /var/lib/witness
EXPOSE 7380
# SIGTERM finishes what is in flight; give it longer than docker's ten seconds: docker stop --time 60.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7380/healthz', timeout=4)"]
ENTRYPOINT ["witness"]
# Every interface of the container; who may reach it from outside, docker run -p decides.
CMD ["run", "--listen", "0.0.0.0:7380"]
