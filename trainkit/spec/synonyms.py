"""The words of Keras, PyTorch and scikit-learn beside ours: what a mistaken field or kind was meant to be.

Words are compared without case and signs: `BatchNorm2d`, `batch_norm_2d` and `batchnorm2d` are one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

FIELDS: dict[str, str] = {
    "dataset": "data train_data training_data dataset_id csv input_file",
    "dataset.target": "target target_column label label_column y y_col class_column",
    "dataset.features": "features feature_columns columns x x_col",
    "dataset.ignore": "ignore drop_columns exclude_columns",
    "dataset.window": "lookback sequence_length seq_len timesteps input_width window_size",
    "dataset.horizon": "forecast_horizon steps_ahead n_ahead prediction_length output_width",
    "task": "problem_type task_type objective_type",
    "split.train": "train_size train_split train_ratio",
    "split.validation": "validation_split val_split validation_size val_size validation_fraction validation_data val_ratio",
    "split.test": "test_size test_split test_ratio",
    "split.stratify": "stratify",
    "split.folds": "n_splits cv k_folds num_folds",
    "split.seed": "split_seed",
    "balance": "class_weight class_weights sampler oversampling undersampling",
    "preprocess": "preprocessing scaler scaling normalize normalization standardize standardise transform preprocessor",
    "preprocess_columns": "column_transformer columntransformer tabular_preprocessing preprocess_tabular column_steps",
    "augment": "augmentation augmentations data_augmentation transforms image_augmentation",
    "model": "architecture arch network net backbone model_name model_type estimator classifier",
    "model.hidden": (
        "units hidden_layer_sizes hidden_size hidden_sizes hidden_units hidden_layers hidden_dim hidden_dims layers "
        "layer_sizes neurons num_units widths dense_units"
    ),
    "model.channels": "filters n_filters num_filters out_channels conv_channels",
    "model.kernel": "kernel_size filter_size",
    "model.layers": "num_layers n_layers n_recurrent_layers",
    "model.pool": "pooling pool_type",
    "model.head": "global_pool pooling_head pooling",
    "model.dense": "dense_layers fc fc_layers fully_connected",
    "model.activation": "activation activations activation_function act nonlinearity hidden_activation act_layer",
    "model.norm": "batch_norm batchnorm batch_normalization use_batch_norm use_bn bn normalization_layer norm_layer",
    "model.dropout": "dropout dropout_rate drop_rate drop_prob dropout_prob p_dropout drop p recurrent_dropout",
    "model.init": "kernel_initializer initializer initialization weight_init init_method weights pretrained init",
    "model.image": "image_encoder vision vision_encoder image_model image_backbone image_body",
    "model.columns": "tabular tabular_encoder metadata column_encoder columns_encoder tabular_model",
    "model.name": "variant arch architecture",
    "model.image_size": "input_size img_size resize image_height",
    "model.max_iter": "n_estimators num_boost_round num_iterations n_rounds",
    "model.max_leaf_nodes": "num_leaves max_leaves",
    "model.min_samples_leaf": "min_data_in_leaf min_child_samples",
    "model.l2_regularization": "reg_lambda lambda_l2",
    "model.bidirectional": "bidirectional",
    "model.gamma": "gamma",
    "model.c": "c",
    "loss": "criterion loss_function loss_fn objective",
    "optimizer": "optim solver optimiser",
    "optimizer.lr": "lr learning_rate learning_rate_init initial_learning_rate base_lr eta eta0 step_size",
    "model.learning_rate": "lr eta shrinkage",
    "optimizer.momentum": "momentum",
    "optimizer.nesterov": "nesterov nesterovs_momentum use_nesterov",
    "optimizer.betas": "beta_1 beta_2 beta1 beta2 betas",
    "optimizer.eps": "epsilon eps",
    "schedule": "scheduler lr_scheduler lr_schedule learning_rate_schedule learning_rate_scheduler",
    "schedule.gamma": "decay_rate lr_decay decay_factor",
    "schedule.every_epochs": "step_size decay_steps",
    "schedule.warmup_epochs": "warmup warmup_steps num_warmup_steps warm_up",
    "schedule.floor": "eta_min",
    "schedule.rise": "pct_start",
    "schedule.div": "div_factor",
    "schedule.final_div": "final_div_factor",
    "schedule.milestones": "boundaries",
    "regularize": "regularizer regularization kernel_regularizer penalty regularizers",
    "regularize.l2": "alpha C reg_lambda l2_lambda l2_penalty ridge l2_reg",
    "optimizer.rho": "alpha decay_rate smoothing_constant",
    "regularize.l1": "l1 l1_lambda l1_penalty lasso l1_reg",
    "regularize.weight_decay": "weight_decay wd decay",
    "regularize.max_norm": "max_norm kernel_constraint maxnorm",
    "regularize.label_smoothing": "label_smoothing smoothing",
    "train.epochs": (
        "epochs epoch n_epochs num_epochs nb_epoch nb_epochs max_epochs num_train_epochs max_iter n_iter iterations"
    ),
    "train.batch_size": "batch_size batch batchsize bs minibatch_size mini_batch_size per_device_train_batch_size",
    "train.gradient_accumulation_steps": "accumulate_grad_batches gradient_accumulation accumulation_steps grad_accum",
    "train.seed": "seed random_state random_seed manual_seed",
    "train.precision": "dtype fp16 bf16 amp mixed_precision use_amp autocast",
    "train.threads": "n_jobs num_workers num_threads workers n_threads",
    "train.clip_norm": (
        "clipnorm global_clipnorm max_grad_norm gradient_clip_val clip_grad_norm grad_clip gradient_clipping"
    ),
    "train.clip_value": "clipvalue clip_grad_value gradient_clip_value",
    "train.restore_best": "restore_best_weights save_best_only load_best_model_at_end",
    "train.monitor": "monitor metric metrics scoring metric_for_best_model eval_metric",
    "train.checkpoint_seconds": "save_steps save_freq checkpoint_every model_checkpoint",
    "train.evaluate_every_epochs": "validation_freq eval_every check_val_every_n_epoch",
    "train.evaluate_every_steps": "eval_steps val_check_interval",
    "train.log_every_steps": "logging_steps log_every_n_steps log_interval",
    "train.compile": "torch_compile jit_compile",
    "early_stop": "callbacks callback early_stopping earlystopping patience n_iter_no_change early_stopping_rounds tol",
    "early_stop.patience": "n_iter_no_change early_stopping_rounds",
    "early_stop.min_delta": "tol threshold min_improvement early_stopping_threshold",
    "early_stop.start_epoch": "start_from_epoch warmup",
    "start_from": "warm_start checkpoint finetune fine_tune transfer resume_from pretrained_model base_model",
    "start_from.freeze": "freeze frozen trainable freeze_body freeze_backbone freeze_to freeze_until freeze_layers",
    "resources.device": "device gpu gpus cuda accelerator use_gpu use_cuda",
    "resources.max_seconds": "max_time timeout time_limit max_runtime",
    "resources.max_attempts": "retries max_retries",
    "resources.priority": "priority",
    "labels": "tags",
    "name": "title run_name job_name",
    "group": "experiment project experiment_name",
}
"""Path of a field in the job spec -> the words that others have for it. The section at hand goes before others."""
NOTES: dict[str, str] = {
    "metrics": "Every metric of the task is measured; `train.monitor` says by which one the best model is chosen.",
    "callbacks": "Early stopping is `early_stop`, the learning rate's course `schedule`; the best weights are kept anyway.",
    "patience": "`early_stop: [{kind: patience, patience: 5}]`.",
    "earlystopping": "`early_stop: [{kind: patience, patience: 5}]`; true and false are not taken.",
    "alpha": (
        "scikit-learn's MLP divides alpha by the batch, l2 is divided by the training part: `regularize.l2` = alpha x "
        "training samples / batch size."
    ),
    "c": "`regularize.l2` is 1/C; rbf_svm has a field `c`.",
    "weightdecay": (
        "`regularize.weight_decay` is decoupled, as AdamW's. The weight_decay w of PyTorch's SGD is "
        "`regularize: {l2: w, scale: sum}`."
    ),
    "validationsplit": "Shares: `split: 8:1:1` is training, validation and test.",
    "kernelregularizer": "`regularize: {l1: ..., l2: ..., scale: sum}`, for all layers; l2 is twice Keras's number.",
    "classweight": '`balance: class_weights` is scikit-learn\'s "balanced"; `balance: {no: 1, yes: 5}` gives them by hand.',
    "pretrained": "`model.init: {kind: pretrained, ...}`, or `start_from` for transfer learning.",
    "weights": "`model.init: {kind: pretrained, ...}`, or `start_from` for transfer learning.",
    "trainable": "`start_from: {..., freeze: body}` trains the head alone.",
    "units": "Widths of the layers as a list, such as [256, 128].",
    "numlayers": "Layers of an mlp are counted by its list `hidden`, such as [64, 64, 64].",
    "nlayers": "Layers of an mlp are counted by its list `hidden`, such as [64, 64, 64].",
    "patiencelr": "`schedule: {kind: reduce_on_plateau, patience: 3}`.",
}
"""Word -> how the thing is said here, where a path alone does not tell."""
NOT_NEEDED: dict[str, str] = {
    "shuffle": "Leave it out: training samples are drawn in a new order each epoch, by `train.seed`.",
    "verbose": "Leave it out: metrics are read with GET /v1/jobs/{id}/metrics.",
    "num_classes n_classes classes output_size output_dim out_features output_units": (
        "Leave it out: the dataset's classes or targets decide the outputs."
    ),
    "input_shape input_dim in_features in_channels n_features num_features": (
        "Leave it out: the dataset decides the inputs."
    ),
    "output_activation final_activation": "Leave it out: the loss brings the softmax or sigmoid of the output.",
    "bias use_bias fit_intercept": "Leave it out: layers have a bias, except those before a norm.",
    "amsgrad dampening centered maximize foreach fused": "Leave it out: there is no such choice here.",
    "return_sequences stateful": "Leave it out: `layers` stacks them, and `pooling` says what the head sees.",
    "kernel": "Leave it out, or use rbf_svm for a Gaussian and linear_svm for a linear kernel.",
}
"""Words for what is decided otherwise -> the sentence that says how."""
KINDS: dict[str, str] = {
    "mlp": (
        "dense fully_connected MLPClassifier MLPRegressor feedforward feed_forward ffn ann dnn nn neural_network "
        "sequential perceptron multilayer_perceptron"
    ),
    "linear": (
        "logistic_regression LogisticRegression softmax_regression linear_regression ridge lasso SGDClassifier identity "
        "elastic_net linear_activation no_activation"
    ),
    "cnn": "convnet conv_net conv2d convolutional lenet lenet5 conv convolutional_neural_network",
    "residual_cnn": "residual_network residual",
    "resnet18": "resnet",
    "vgg16": "vgg",
    "efficientnet_b0": "efficientnet",
    "mobilenet_v3_small": "mobilenet",
    "densenet121": "densenet",
    "vit_b_16": "vit vision_transformer",
    "lstm": "rnn simple_rnn recurrent bilstm long_short_term_memory",
    "linear_svm": "svm LinearSVC linear_svc",
    "rbf_svm": "svc svr NuSVC kernel_svm support_vector_machine",
    "gradient_boosting": (
        "xgboost xgb lightgbm lgbm catboost HistGradientBoostingClassifier HistGradientBoostingRegressor "
        "GradientBoostingClassifier GradientBoostingRegressor random_forest RandomForestClassifier "
        "RandomForestRegressor trees decision_tree gbm gbdt XGBClassifier XGBRegressor"
    ),
    "multimodal": "multi_modal multi_input multiinput two_tower late_fusion fusion image_and_tabular wide_deep",
    "ensemble": "voting VotingClassifier bagging",
    "cross_entropy": (
        "crossentropy categorical_crossentropy sparse_categorical_crossentropy cross_entropy_loss nll nll_loss log_loss "
        "ce softmax_loss softmax_cross_entropy multinomial"
    ),
    "binary_cross_entropy": "binary_crossentropy bce bce_loss bce_with_logits BCEWithLogitsLoss logistic_loss",
    "mse": "mean_squared_error mse_loss l2_loss squared_error squared_loss rmse l2",
    "mae": "mean_absolute_error l1_loss absolute_error mae_loss l1",
    "huber": "huber_loss smooth_l1 smooth_l1_loss log_cosh",
    "hinge": "hinge_loss categorical_hinge squared_hinge multi_margin_loss",
    "focal": "focal_loss categorical_focal_crossentropy binary_focal_crossentropy",
    "sgd": "SGD gradient_descent stochastic_gradient_descent sgdm sgd_momentum momentum",
    "adamw": "adam_w decoupled_adam",
    "adam": "adamax radam adadelta lbfgs ftrl adabelief",
    "rmsprop": "rms_prop root_mean_square_propagation",
    "nadam": "nesterov_adam",
    "constant": "constant_lr fixed none",
    "step": "step_lr step_decay",
    "multi_step": "multi_step_lr piecewise_constant piecewise_constant_decay multistep",
    "exponential": "exponential_lr exponential_decay",
    "cosine": "cosine_annealing cosine_annealing_lr cosine_decay cosine_annealing_warm_restarts CosineDecayRestarts",
    "one_cycle": "one_cycle_lr onecycle super_convergence",
    "reduce_on_plateau": "reduce_lr_on_plateau plateau adaptive",
    "xavier_uniform": "glorot_uniform xavier glorot",
    "xavier_normal": "glorot_normal",
    "he_normal": "kaiming_normal kaiming he",
    "he_uniform": "kaiming_uniform",
    "normal": "random_normal truncated_normal gaussian",
    "uniform": "random_uniform",
    "zeros": "zero",
    "patience": "early_stopping early_stop EarlyStopping",
    "diverged": "terminate_on_nan nan",
    "time_budget": "time_stopping timeout max_time",
    "median": "median_stopping",
    "successive_halving": "hyperband asha",
    "rotate": "random_rotation rotation random_rotate rotation_range",
    "translate": "random_translation shift random_shift width_shift_range random_affine",
    "scale": "random_zoom zoom zoom_range",
    "horizontal_flip": "random_horizontal_flip hflip flip random_flip fliplr",
    "vertical_flip": "random_vertical_flip vflip flipud",
    "random_crop": "crop",
    "brightness": "random_brightness color_jitter colour_jitter jitter brightness_range",
    "contrast": "random_contrast",
    "noise": "gaussian_noise random_noise add_noise",
    "random_erasing": "cutout erasing random_erase coarse_dropout",
    "rand_augment": "autoaugment auto_augment augmix",
    "z_score": (
        "standardize standardise standard_scaler standardization standardisation normalize normalise normalization "
        "standard zscore scaler scale robust_scaler"
    ),
    "min_max": "min_max_scaler rescale rescaling minmax",
    "zero_mean": "center centre centering mean_subtraction demean",
    "whiten": "zca whitening zca_whitening",
    "impute": "simple_imputer imputer fillna imputation",
    "relu": "rectifier rectified_linear ReLU relu6",
    "leaky_relu": "LeakyReLU lrelu prelu rrelu",
    "elu": "selu celu",
    "silu": "swish hard_swish hardswish",
    "sigmoid": "logistic hard_sigmoid expit",
    "tanh": "hard_tanh",
    "batch": "batch_norm batch_normalization BatchNorm1d BatchNorm2d bn true",
    "layer": "layer_norm layer_normalization ln",
    "group": "group_norm group_normalization gn instance instance_norm",
    "max": "max_pool max_pooling max_pooling2d MaxPool2d",
    "average": "avg avg_pool average_pooling AvgPool2d mean",
    "global_average": "gap global_average_pooling GlobalAveragePooling2D global_avg_pool adaptive_avg_pool avg",
    "bfloat16": "bf16 fp16 float16 half mixed mixed_bfloat16 mixed_float16 16",
    "float32": "fp32 single full float float64 fp64 double 32",
    "class_weights": "balanced class_weight weights weighted",
    "oversample": "smote over_sampling over_sample RandomOverSampler",
    "undersample": "under_sampling under_sample RandomUnderSampler",
    "classification": "classifier classify binary multiclass binary_classification multi_class image_classification",
    "regression": "regressor regress",
    "forecasting": "forecast time_series timeseries time_series_forecasting",
    "sequence_classification": "time_series_classification text_classification sequence",
    "cuda": "gpu nvidia",
    "mps": "metal apple",
    "body": "backbone base encoder true",
    "val_accuracy": "accuracy acc val_acc valid_accuracy",
    "val_loss": "loss validation_loss valid_loss",
    "val_mae": "val_mean_absolute_error mean_absolute_error",
    "val_mse": "val_mean_squared_error mean_squared_error",
    "val_roc_auc": "auc val_auc roc_auc auroc",
    "val_f1": "f1 f1_score val_f1_score f1_macro",
    "random": "random_search RandomizedSearchCV randomsearch",
    "grid": "grid_search GridSearchCV gridsearch",
    "kfold": "cross_validation cv k_fold cross_val StratifiedKFold",
    "monte_carlo": "shuffle_split StratifiedShuffleSplit bootstrap repeated_holdout",
    "tpe": "bayesian bayesian_optimization BayesianOptimization optuna hyperopt",
    "asha": "hyperband successive_halving",
}
"""Our kind or choice -> others' words for it, whatever the section."""
KIND_NOTES: dict[str, str] = {
    "momentum": (
        "PyTorch's momentum is {kind: sgd, momentum: 0.9}, m = 0.9 m + g; ema_momentum is the mean m = 0.9 m + 0.1 g, "
        "whose steps are a tenth as long at the same lr."
    ),
    "softmax": "The output's softmax is part of the loss; an activation stands between hidden layers.",
    "nesterovmomentum": "{kind: sgd, momentum: 0.9, nesterov: true}.",
    "randomforest": "There is no random forest; gradient boosting is the model of trees.",
    "transformer": "There is no transformer for tables or series; vit_b_16 and swin_t read images.",
    "dropout": "Dropout is a field of the model: `model.dropout`.",
    "resnet": "`model: resnet18` is torchvision's; residual_cnn is a small one of the same idea.",
    "none": "Leave it out for none, or give an empty list where a list is meant.",
}
"""Word for a kind -> how the thing is said here, where another word alone does not tell."""


def plain(word: str) -> str:
    """The word without case and signs."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _reversed(table: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for ours, words in table.items():
        for word in words.split():
            found.setdefault(plain(word), []).append(ours)
    return found


_PATHS, _KINDS = _reversed(FIELDS), _reversed(KINDS)
_NOT_NEEDED = {plain(word): sentence for words, sentence in NOT_NEEDED.items() for word in words.split()}


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean "x"?` by spelling alone, as for the names of columns; '' when nothing is close."""
    known = list(known)
    by_letters = {plain(name): name for name in known}
    match = [by_letters[plain(word)]] if plain(word) in by_letters else difflib.get_close_matches(word, known, 1, 0.6)
    return _question(match[0]) if match else ""


def suggest_kind(word: str, known: Iterable[str]) -> str:
    """`Did you mean "x"?` for a kind or a choice: the same word, another library's, or the nearest by spelling."""
    known = list(known)
    parts = [KIND_NOTES.get(plain(word), "")]
    exact = [name for name in known if plain(name) == plain(word)]
    others = [name for name in _KINDS.get(plain(word), ()) if name in known]
    if exact or others:
        parts.insert(0, _question((exact or others)[0]))
    elif not parts[0]:
        parts.append(nearest(word, known))
    return " ".join(part for part in parts if part)


def suggest_field(word: str, section: str, known: Iterable[str], spec_fields: Collection[str]) -> str:
    """`Did you mean "train.epochs"?` for an unknown field; '' when nothing is close.

    `section`: path of the object that has it; `known`: the fields there; `spec_fields`: paths of all fields of a job
    spec where the object is part of one.
    """
    known, same, note = list(known), plain(word), NOTES.get(plain(word), "")
    if not spec_fields:
        return nearest(word, known)
    paths = [path for path in _PATHS.get(same, ()) if path in spec_fields]
    in_section = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == section]
    found = [name for name in known if plain(name) == same] or [name for name in in_section if name in known]
    if not found and same in _NOT_NEEDED:
        return _NOT_NEEDED[same]
    if not found:
        elsewhere = [path for path in spec_fields if path.rpartition(".")[2] == word]
        found = [path for path in (*paths, *elsewhere) if path.rpartition(".")[0] != section]
    if found:
        return f"{_question(found[0])} {note}".strip()
    return note or nearest(word, known)


def _question(name: str) -> str:
    return f'Did you mean "{name}"?'
