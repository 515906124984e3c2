#!/usr/bin/env bash
# What the image starts: a driver or an executor as Spark on Kubernetes asks for one, or any other command.
#
# Takes: `driver` with the arguments of spark-submit, `executor`, or a command; of the first two the rest is in the environment.
# Source: what Spark 4.0 puts into its containers (BasicDriverFeatureStep, DriverCommandFeatureStep, BasicExecutorFeatureStep).
set -euo pipefail

case ${1:-} in
driver)
    shift
    exec spark-submit --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" --deploy-mode client "$@"
    ;;
executor)
    options=()
    for name in $(compgen -v SPARK_JAVA_OPT_ | sort -t_ -k4 -n); do options+=("${!name}"); done
    exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
        -cp "${SPARK_CONF_DIR:-}:${SPARK_CLASSPATH:-}:$SPARK_HOME/jars/*" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
        --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
        --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "${SPARK_EXECUTOR_POD_NAME:-}"
    ;;
*)
    exec "$@"
    ;;
esac
